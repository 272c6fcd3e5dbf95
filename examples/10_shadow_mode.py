"""Come to trust the router before it decides anything.

In shadow mode one model goes on answering everything, and the books tell what
the router would have done and what that would have cost. A dry run explains one
decision without asking anybody. Scripted candidates: no key is needed.
"""

import re

from mixllm_integrations import (
    CandidateModel,
    MixLLMCallbackHandler,
    MixLLMChatModel,
    RoutingRule,
)
from mixllm_integrations.testing import ScriptedChatModel

PROMPTS = [
    "Thanks!",
    "What is the capital of Peru?",
    "Prove that there are infinitely many primes.",
    "Write to ann@example.org that the parcel has arrived.",
]

books = MixLLMCallbackHandler()
model = MixLLMChatModel(
    candidates=[
        CandidateModel(
            model=ScriptedChatModel(answers=["..."]),
            name=name,
            input_cost_per_million_tokens=usd,
            output_cost_per_million_tokens=4 * usd,
            prior_quality=quality,
        )
        for name, usd, quality in [
            ("local", 0.0, 0.4),
            ("small", 0.15, 0.6),
            ("large", 2.5, 0.85),
        ]
    ],
    callbacks=[books],
    willingness_to_pay=0.02,
)

# 1. The large one answers as it always did; the router only watches.
for text in PROMPTS:
    answer = model.invoke(text, {"configurable": {"shadow": "large"}})
    record = answer.response_metadata["mixllm"]
    print(f"{record['candidate']} answered; {record['shadow']['candidate']} would have")
totals = books.totals
print(f"{totals.cost:.6f} USD; the router would have spent {totals.shadow_cost:.6f}")

# 2. Why? A dry run asks nobody.
print(model.invoke(PROMPTS[2], {"configurable": {"dry_run": True}}).text)

# 3. Convinced: personal data stay on this machine, the rest is routed.
email = re.compile(r"[\w.]+@[\w.]+")
model.rules = [RoutingRule(when=email, among=["local"], name="personal data")]
for text in PROMPTS:
    record = model.invoke(text).response_metadata["mixllm"]
    print(f"{record['candidate']}: {text}")
