"""Calls at servers that misbehave, of which one goes away for a while."""

import contextlib
import gc
import math
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mixllm_integrations.benchmark.load.books import books_of
from mixllm_integrations.benchmark.load.callers import Answered, Callers
from mixllm_integrations.benchmark.load.figures import ChaosFigures
from mixllm_integrations.benchmark.load.servers import Servers
from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.store import Event, open_store

__all__ = ["run_chaos"]

# From name to USD per million tokens of prompt and answer, and expected quality.
# The first is asked most.
_CANDIDATES = {
    "small": (0.1, 0.4, 0.8),
    "middle": (0.5, 2.0, 0.7),
    "large": (3.0, 9.0, 0.6),
}
_DOWN = "small"
_TICK_SECONDS = 0.005
_ENDING_SECONDS = 10.0
_QUANTILES = (0.5, 0.95, 0.99, 1.0)
# Threads that are kept for the next call.
_KEPT = "mixllm-worker"


def run_chaos(
    *,
    callers: int = 200,
    calls: int = 10_000,
    fault_share: float = 0.3,
    seed: int = 0,
    down: tuple[float, float] = (0.4, 0.6),
    timeout_seconds: float = 5.0,
    cooldown_seconds: float = 1.0,
    give_up_after_seconds: float = 120.0,
) -> ChaosFigures:
    """Let callers ask, while servers misbehave and one of them goes away for a while.

    Parameters
    ----------
    callers
        How many ask at once: threads for the first half of the calls, then
        coroutines of one loop.
    calls
        How many in all.
    fault_share
        Share of requests that go wrong at each candidate, in [0, 1].
    seed
        Which requests do, and how.
    down
        Between which shares of the calls one candidate refuses connections.
    timeout_seconds
        How long to wait for a server; who hangs does so twice as long.
    cooldown_seconds, give_up_after_seconds
        Of the routed model.

    Returns
    -------
    ChaosFigures
        What became of the calls.

    Raises
    ------
    ConfigurationError
        If an argument cannot be used, or langchain-openai is not installed.
    """
    number_between(callers, "callers", low=1)
    number_between(calls, "calls", low=1)
    number_between(timeout_seconds, "timeout_seconds", low_is_allowed=False)
    threads_before = set(threading.enumerate())
    with Servers(
        tuple(_CANDIDATES),
        fault_share=number_between(fault_share, "fault_share", high=1.0),
        seed=seed,
        hang_seconds=2.0 * timeout_seconds,
    ) as servers:
        figures = _ran(
            Callers(callers, calls),
            servers,
            [share * calls for share in down],
            _candidates(servers.urls, timeout_seconds),
            cooldown_seconds=cooldown_seconds,
            give_up_after_seconds=give_up_after_seconds,
        )
    gc.collect()  # who holds a model holds the thread that writes its log
    return ChaosFigures(
        callers=callers,
        calls=calls,
        fault_share=fault_share,
        seed=seed,
        threads_left=_threads_left(threads_before),
        **figures,
    )


def _ran(
    asking: Callers,
    servers: Servers,
    down: Sequence[float],
    candidates: Sequence[CandidateModel],
    **settings: float,
) -> dict[str, Any]:
    """Make the calls, and return what became of them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = open_store(f"sqlite:///{folder / 'events.db'}")
        assert log is not None  # noqa: S101 - a URL opens a store
        stack.callback(log.close)
        model = MixLLMChatModel(
            candidates=candidates, router=None, store=log, **settings
        )
        outage = _Outage(servers, asking, down)
        began = time.monotonic()
        outage.start()
        try:
            asking.ask_all(model)
        finally:
            outage.end()
        wall_seconds = time.monotonic() - began
        events = list(log.events())
        waiting = model.router._waiting  # noqa: SLF001 - nothing else counts
        return {
            "wall_seconds": wall_seconds,
            "broken_streams": asking.broken,
            "lost": dict(asking.lost),
            "in_flight": {name: waiting.in_flight(name) for name in _CANDIDATES},
            "tasks_left": asking.tasks_left,
            **_of_answers(asking.answered, events),
            **outage.figures(asking.answered, events),
        }


def _candidates(
    urls: Mapping[str, str], timeout_seconds: float
) -> list[CandidateModel]:
    """Return clients; of the second one, it is not the client that loses patience."""
    try:
        from langchain_openai import ChatOpenAI
    except ImportError as error:
        raise ConfigurationError(
            "the load is sent by real clients: pip install "
            "'mixllm-integrations[providers]'"
        ) from error
    patient = {"middle": 4.0 * timeout_seconds}
    return [
        CandidateModel(
            model=ChatOpenAI(
                model=name,
                base_url=urls[name],
                api_key=lambda: "unused",
                timeout=patient.get(name, timeout_seconds),
                max_retries=0,
                stream_usage=True,
            ),
            timeout_seconds=timeout_seconds if name in patient else None,
            input_cost_per_million_tokens=asked,
            output_cost_per_million_tokens=said,
            prior_quality=quality,
        )
        for name, (asked, said, quality) in _CANDIDATES.items()
    ]


class _Outage(threading.Thread):
    """Closes a server when so many calls have ended, and opens it again later."""

    def __init__(
        self, servers: Servers, asking: Callers, bounds: Sequence[float]
    ) -> None:
        super().__init__(name="mixllm-outage", daemon=True)
        self._servers = servers
        self._asking = asking
        self._bounds = bounds
        self._ended = threading.Event()
        self._down: list[datetime] = []
        self._back_at = math.inf
        self._down_seconds = 0.0

    def run(self) -> None:
        first, last = self._bounds
        if last <= first or not self._reached(first):
            return
        self._servers.close(_DOWN)
        began = time.monotonic()
        self._down.append(datetime.now(UTC))
        self._reached(last)
        self._down.append(datetime.now(UTC))
        self._servers.come_back(_DOWN)
        self._back_at = time.monotonic()
        self._down_seconds = self._back_at - began

    def end(self) -> None:
        """Wait for no more calls."""
        self._ended.set()
        self.join()

    def _reached(self, count: float) -> bool:
        while self._asking.done < count:
            if self._ended.wait(_TICK_SECONDS):
                return False
        return True

    def figures(
        self, answered: Sequence[Answered], events: Sequence[Event]
    ) -> dict[str, Any]:
        """Return what it did to the candidate."""
        asked = sum(
            self._down[0] <= event.at <= self._down[1]
            for event in events
            if self._down
            and event.kind == "decision"
            and event.payload["candidate"] == _DOWN
        )
        again = [
            one.at - self._back_at
            for one in answered
            if one.at > self._back_at and one.record["candidate"] == _DOWN
        ]
        return {
            "asked_while_down": asked,
            "down_seconds": self._down_seconds,
            "answered_again_after_seconds": min(again, default=None),
        }


def _of_answers(
    answered: Sequence[Answered], events: Sequence[Event]
) -> dict[str, Any]:
    costs, ids, failovers = [], [], 0
    for one in answered:
        asked, said, _ = _CANDIDATES[one.record["candidate"]]
        costs.append((one.tokens[0] * asked + one.tokens[1] * said) / 1e6)
        before = one.record["attempts"]
        failovers += len(before)
        ids += [one.record["decision_id"], *(each["decision_id"] for each in before)]
    logged = {event.decision_id for event in events if event.kind == "outcome"}
    seconds = [one.seconds for one in answered]
    return {
        "answered": len(answered),
        "failovers": failovers,
        "latency_seconds": (
            tuple(np.quantile(seconds, _QUANTILES).tolist()) if seconds else None
        ),
        "answers_by_candidate": dict(
            Counter(one.record["candidate"] for one in answered)
        ),
        "books": books_of(events),
        "unlogged": len(set(ids) - logged),
        "answers_cost": math.fsum(costs),
        "records_cost": math.fsum(one.record["cost"] for one in answered),
    }


def _threads_left(before: set[threading.Thread]) -> int:
    """Return how many threads do not end within some seconds."""
    deadline = time.monotonic() + _ENDING_SECONDS
    while True:
        left = [
            thread
            for thread in threading.enumerate()
            if thread not in before and not thread.name.startswith(_KEPT)
        ]
        if not left or time.monotonic() > deadline:
            return len(left)
        time.sleep(_TICK_SECONDS)
