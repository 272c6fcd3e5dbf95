"""The router without any framework: fit on records, ask why, save, load.

A record is one candidate's answer to one query with a grade in [0, 1]: the
judgement of a reader, of a test, of another model. Here a rule grades: both
models can add, the large one at greater length, but only the large one can prove.
"""

import tempfile
from pathlib import Path

import numpy as np

from mixllm_integrations import Candidate, Outcome, Router, RoutingRecord

SMALL = Candidate("small", 0.1, 0.4)
LARGE = Candidate("large", 2.0, 10.0)

draw = np.random.default_rng(0)
SUMS = [f"What is {a} plus {b}?" for a, b in draw.integers(2, 99, size=(60, 2))]
PROOFS = [
    f"Prove that {what} for every {kind} number n greater than {draw.integers(2, 99)}."
    for what in ("n squared plus n is even", "n is smaller than 2 to the n")
    for kind in ("natural", "odd", "prime", "square", "triangular")
    for _ in range(6)
]

records = []
for place, query in enumerate(SUMS + PROOFS):
    hard = query in PROOFS
    for candidate, tokens in ((SMALL, 20), (LARGE, 250)):
        fails = place % 6 > 0 if hard and candidate is SMALL else place % 20 == 0
        records.append(
            RoutingRecord(
                query,
                candidate.name,
                quality=0.0 if fails else 1.0,
                input_tokens=len(query.split()),
                output_tokens=tokens + (100 if hard else 0),
                tags=("proof",) if hard else ("arithmetic",),
            )
        )

# 1. Fit. `willingness_to_pay` is USD for one right answer more.
router = Router([SMALL, LARGE], willingness_to_pay=0.02, seed=0).fit(records)

# 2. Ask why.
for query in ("What is 41 plus 17?", "Prove that n cubed minus n is divisible by 6."):
    decision = router.route(query)
    print(f"{query}\n{decision.explain()}\n")
    # What the call took; here you would have asked the model.
    router.record_outcome(decision.id, Outcome(input_tokens=9, output_tokens=40))
    router.record_feedback(decision.id, 1.0)

# 3. Rather than guess a willingness to pay, say what quality you need.
found = router.calibrate(records, quality_target=0.95)
print(
    f"to keep 95 % of {found.strongest}'s quality, pay {found.willingness_to_pay:.3g} "
    f"USD a point: {found.relative_quality:.0%} of its quality for "
    f"{found.relative_cost:.0%} of its cost"
)

# 4. Save, and go on elsewhere. A folder of JSON and arrays, never a pickle.
with tempfile.TemporaryDirectory() as folder:
    router.save(Path(folder) / "router")
    loaded = Router.load(Path(folder) / "router")
question = "What is 12 plus 30?"
print("after loading:", loaded.route(question).candidate)
