"""Routers whose choice is known beforehand, under a clock that stands still."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import Dispatcher
from mixllm_integrations.testing import ManualClock


@pytest.fixture(autouse=True)
def spool_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for what waits while a database is away."""
    folder = tmp_path / "spool"
    monkeypatch.setenv("MIXLLM_SPOOL", str(folder))
    return folder


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ranked_router(clock: ManualClock) -> Router:
    """Chooses best, then middle, then worst, whatever is asked."""
    return Router(
        [
            Candidate("worst", 4.0, 8.0, prior_quality=0.1),
            Candidate("best", 1.0, 2.0, prior_quality=0.9),
            Candidate("middle", 2.0, 4.0, prior_quality=0.5, tools=False),
        ],
        exploration=0.0,
        clock=clock,
    )


@pytest.fixture
def dispatcher(ranked_router: Router, clock: ManualClock) -> Dispatcher:
    return Dispatcher(ranked_router, cooldown_seconds=30.0, clock=clock)


class WatchedRouter:
    """A router that also notes which outcomes it was told of."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.outcomes: dict[str, object] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self.router, name)

    def record_outcome(self, decision_id: str, outcome: object) -> None:
        assert decision_id not in self.outcomes, "an outcome was told twice"
        self.outcomes[decision_id] = outcome
        self.router.record_outcome(decision_id, outcome)


@pytest.fixture
def watched(ranked_router: Router) -> WatchedRouter:
    return WatchedRouter(ranked_router)


@pytest.fixture
def watched_dispatcher(
    watched: WatchedRouter, clock: ManualClock
) -> Callable[..., Dispatcher]:
    def make(**settings: object) -> Dispatcher:
        return Dispatcher(watched, clock=clock, **settings)

    return make


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a call hangs at until the test ends."""
    opened = threading.Event()
    yield opened
    opened.set()
