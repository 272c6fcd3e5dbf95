"""Watches what a process keeps of the calls that it serves.

``python -m mixllm_integrations.benchmark.memory_probe FOLDER CALLS [heard]`` serves
so many calls with a saved router, nothing else, and prints as JSON what memory
it held on the way and how much it remembered; with ``heard`` a
`MixLLMCallbackHandler` listens. `mixllm_integrations.benchmark.overhead` starts it.
"""

import gc
import json
import sys
from typing import Any
from uuid import uuid4

from langchain_core.callbacks import CallbackManager
from langchain_core.runnables import RunnableConfig

from mixllm_integrations.benchmark.chat_probe import without_tracing
from mixllm_integrations.benchmark.contestants import routed
from mixllm_integrations.benchmark.serving_probe import resident_bytes
from mixllm_integrations.core.router import Router
from mixllm_integrations.langchain import MixLLMCallbackHandler, MixLLMChatModel

__all__ = ["main", "memory_samples", "remembered"]

_ABANDONED_EVERY = 10


def memory_samples(
    router: Router, n_calls: int, *, heard: bool = False, n_samples: int = 20
) -> list[dict[str, Any]]:
    """Serve, and return what was held after each part of the calls.

    Each call has a text, a session and a chain of its own, nobody gives feedback,
    and each tenth one is a stream that is given up after its first chunk.

    Parameters
    ----------
    router
        Who decides.
    n_calls
        How many calls.
    heard
        Whether a `MixLLMCallbackHandler` listens.
    n_samples
        In how many parts.

    Returns
    -------
    list of dict
        ``calls`` so far, ``resident_bytes`` (``None`` where it cannot be read)
        and what `remembered` returns under ``remembered``.
    """
    handler = MixLLMCallbackHandler() if heard else None
    callbacks = () if handler is None else (handler,)
    model = routed(router.candidates, router=router, callbacks=callbacks)
    samples = []
    served = 0
    for part in range(1, n_samples + 1):
        upto = n_calls * part // n_samples
        for number in range(served, upto):
            _serve(model, number)
        served = upto
        gc.collect()  # what nobody holds any more is no leak
        samples.append(
            {
                "calls": served,
                "resident_bytes": resident_bytes(),
                "remembered": remembered(model, handler),
            }
        )
    return samples


def remembered(
    model: MixLLMChatModel, handler: MixLLMCallbackHandler | None
) -> dict[str, int]:
    """Return how much of past calls is kept, by what it is.

    Parameters
    ----------
    model
        Who was called.
    handler
        Who listened.
    """
    # A measurement may look where a user need not.
    router = model.router
    waiting = router._waiting  # noqa: SLF001
    found = {
        "pending decisions": len(router._ledger),  # noqa: SLF001
        "calls under way": sum(waiting.in_flight(c.name) for c in router.candidates),
        "run ids": len(model.run_ids),
        "sessions": len(model.dispatcher.sessions._read),  # noqa: SLF001
    }
    if handler is not None:
        found["reports"] = len(handler._ended)  # noqa: SLF001
        found["open reports"] = len(handler._open)  # noqa: SLF001
    return found


def _serve(model: MixLLMChatModel, number: int) -> None:
    prompt = f"Tell me what follows from statement {number}."
    config: RunnableConfig = {
        "configurable": {"session_id": f"session {number}"},
        "callbacks": CallbackManager(handlers=[], parent_run_id=uuid4()),
    }
    if number % _ABANDONED_EVERY:
        model.invoke(prompt, config)
    else:
        next(model.stream(prompt, config))


def main() -> None:
    """Serve, and print the samples as JSON."""
    folder, n_calls, *how = sys.argv[1:]
    without_tracing()
    samples = memory_samples(Router.load(folder), int(n_calls), heard="heard" in how)
    sys.stdout.write(json.dumps(samples))


if __name__ == "__main__":
    main()
