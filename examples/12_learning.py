"""Let the router learn while it works: a newcomer, and a favourite that gets worse.

Only the chosen model's answer is ever judged, and three users in ten never say.
Nobody tells the router that the model which joins is a good one, nor that it
silently gets worse later. Scripted candidates: no key is needed.
"""

import numpy as np

from mixllm_integrations import Candidate, Outcome, Router, RoutingRecord

# How often each model is right, on easy and on hard questions.
TRUTH = {"small": [0.90, 0.30], "large": [0.95, 0.80], "fresh": [0.95, 0.95]}
TOKENS = {"small": 60, "large": 300, "fresh": 200}  # of a usual answer
SMALL, LARGE = Candidate("small", 0.1, 0.4), Candidate("large", 2.0, 10.0)
FRESH = Candidate("fresh", 1.5, 6.0)  # nothing is known of it but its price

draw = np.random.default_rng(0)


def question() -> tuple[str, int]:
    """Return a question, and whether it is a hard one."""
    a, b = draw.integers(2, 1_000, size=2)
    if draw.random() < 0.5:
        return f"What is {a} plus {b}?", 0
    return f"Prove that n to the power {a} is never prime if n exceeds {b}.", 1


def is_right(name: str, is_hard: int) -> float:
    return float(draw.random() < TRUTH[name][is_hard])


records = [
    RoutingRecord(text, c.name, is_right(c.name, hard), output_tokens=TOKENS[c.name])
    for text, hard in (question() for _ in range(150))
    for c in (SMALL, LARGE)
]
router = Router([SMALL, LARGE], willingness_to_pay=0.02, waiting_weight=0, seed=0)
router.fit(records)


def traffic(when: str, n: int = 600) -> None:
    """Answer questions, tell what came of them, and show who got the last half."""
    chosen, rewards = [], []
    for _ in range(n):
        text, is_hard = question()
        decision = router.route(text)
        name = decision.candidate
        tokens = max(round(TOKENS[name] * draw.lognormal(0, 0.3)), 1)
        router.record_outcome(decision.id, Outcome(len(text) // 4, tokens))
        chosen.append(name)
        rewards.append(is_right(name, is_hard))
        if draw.random() < 0.7:  # the others never say
            router.record_feedback(
                decision.id, rewards[-1], kind="binary", source="thumbs"
            )
    last = chosen[n // 2 :]
    shares = "".join(f"{last.count(name) / len(last):>8.0%}" for name in TRUTH)
    print(f"{when:34}{shares}{np.mean(rewards[n // 2 :]):>8.0%}")


print(f"{'share of the traffic':34}{''.join(f'{name:>8}' for name in TRUTH)}   right")
traffic("as fitted")

router.add_candidate(FRESH)
traffic("fresh has joined")

TRUTH["fresh"] = [0.5, 0.45]  # an update of the model, say; its name is the same
traffic("fresh has got worse")

for event in router.drifts:  # the log has a line of each as well
    print("alarm:", event)

# Between two refits a linear head learns answer by answer; now the heads proper
# learn the same, in the background if you pass `refit_every`.
print("refitted:", router.refit())
traffic("after a refit", n=200)
