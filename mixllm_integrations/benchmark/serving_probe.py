"""Times decisions and calls in a process that does nothing but serve.

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

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Outcome
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel

__all__ = ["BARE", "OURS", "RIVAL", "invoke_seconds", "main", "route_seconds"]

BARE, OURS, RIVAL = "bare model", "MixLLMChatModel", "langchain-model-router"

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
    for number, prompt in enumerate(_warmed_up(prompts)):
        began = time.perf_counter()
        decision = router.route(prompt)
        spent = time.perf_counter() - began
        router.record_outcome(decision.id, Outcome(100, 100))
        if number >= _WARM_UP:
            seconds.append(spent)
    return seconds


def invoke_seconds(
    models: dict[str, Any], prompts: Sequence[str]
) -> dict[str, list[float]]:
    """Return how long each call of each chat model took.

    Parameters
    ----------
    models
        By name; they take turns, so that all meet the same state of the machine.
    prompts
        One call each, after a few to warm up.
    """
    seconds: dict[str, list[float]] = {who: [] for who in models}
    for number, prompt in enumerate(_warmed_up(prompts)):
        for who, model in models.items():
            began = time.perf_counter()
            model.invoke(prompt)
            spent = time.perf_counter() - began
            if number >= _WARM_UP:
                seconds[who].append(spent)
    return seconds


def _warmed_up(prompts: Sequence[str]) -> list[str]:
    return [prompts[i % len(prompts)] for i in range(_WARM_UP)] + list(prompts)


def _scripted(name: str) -> ScriptedChatModel:
    return ScriptedChatModel(model=name, answers=["ok"])


def _routed(router: Router) -> MixLLMChatModel:
    return MixLLMChatModel(
        candidates=[
            CandidateModel(
                model=_scripted(c.name),
                name=c.name,
                input_cost_per_million_tokens=c.input_cost_per_million_tokens,
                output_cost_per_million_tokens=c.output_cost_per_million_tokens,
            )
            for c in router.candidates
        ],
        router=router,
    )


def _rival(router: Router) -> dict[str, Any]:
    try:
        from langchain_model_router import ChatRouter
    except ImportError:
        return {}
    names = [c.name for c in router.candidates]
    rival = ChatRouter(
        routes={name: _scripted(name) for name in names},
        default_route=names[0],
        strategy=lambda _request: names[-1],
    )
    return {RIVAL: rival}


def _resident_bytes() -> int | None:
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
    ours = _routed(router)
    for prompt in prompts:
        ours.invoke(prompt)
    found: dict[str, Any] = {
        "resident_bytes": _resident_bytes(),
        "served_with": sorted(set(_OF_TRAINING) & set(sys.modules)),
        "route": route,
    }
    models = {BARE: _scripted("bare"), OURS: ours, **_rival(router)}
    found["invoke"] = invoke_seconds(models, prompts)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
