"""Times decisions and takes the memory of a process that does nothing but serve.

``python -m mixllm_integrations.benchmark.serving_probe FOLDER PROMPTS`` loads a
saved router, answers the prompts of a JSON list, and prints what it took as
JSON. It imports nothing that a serving process would not, so its memory is that
of one; `mixllm_integrations.benchmark.overhead` starts it.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixllm_integrations.benchmark.contestants import routed
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Outcome

__all__ = ["main", "resident_bytes", "route_seconds"]

_WARM_UP = 30
_STATUS = Path("/proc/self/status")
_OF_TRAINING = ("sklearn", "scipy", "torch", "pandas", "sentence_transformers")


def route_seconds(router: Router, prompts: Sequence[str]) -> list[float]:
    """Return how long each decision took, embedding included.

    Parameters
    ----------
    router
        Whose outcomes are recorded between the decisions, not timed.
    prompts
        One decision each, after a few to warm up.
    """
    seconds = []
    warm_up = [prompts[i % len(prompts)] for i in range(_WARM_UP)]
    for number, prompt in enumerate([*warm_up, *prompts]):
        began = time.perf_counter()
        decision = router.route(prompt)
        spent = time.perf_counter() - began
        router.record_outcome(decision.id, Outcome(100, 100))
        if number >= _WARM_UP:
            seconds.append(spent)
    return seconds


def resident_bytes() -> int | None:
    """Return the memory of this process; ``None`` where it cannot be read."""
    if not _STATUS.exists():
        return None
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    resident = next(line for line in lines if line.startswith("VmRSS:"))
    return int(resident.split()[1]) * 1024


def main() -> None:
    """Serve, measure, and print the figures as JSON."""
    folder, file = sys.argv[1:3]
    prompts = json.loads(Path(file).read_text(encoding="utf-8"))
    router = Router.load(folder)
    route = route_seconds(router, prompts)
    model = routed(router.candidates, router=router)
    for prompt in prompts:
        model.invoke(prompt)
    found: dict[str, Any] = {
        "resident_bytes": resident_bytes(),
        "served_with": sorted(set(_OF_TRAINING) & set(sys.modules)),
        "route": route,
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
