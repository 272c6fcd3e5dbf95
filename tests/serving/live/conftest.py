"""Workers in one process that tell and hear when a test says so."""

import pytest

from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving import Dispatcher
from mixllm_integrations.store.live import MemoryState, SharedStateError
from mixllm_integrations.testing import ManualClock


class Flaky(MemoryState):
    """Can be away."""

    is_away = False

    def exchange(self, told):
        if self.is_away:
            raise SharedStateError("ConnectionError: nobody there")
        return super().exchange(told)

    def lease(self, request):
        if self.is_away:
            raise SharedStateError("ConnectionError: nobody there")
        return super().lease(request)


class Quiet(Dispatcher):
    """Looks when the test says so, and has no thread."""

    def __init__(self, router, state, clock, **settings):
        super().__init__(router, clock=clock, shared_state=state, **settings)
        self.live._talk._clock = clock
        self.live.start = lambda: None

    def look(self):
        return self.live.look()

    def tell(self, other):
        self.look()
        other.look()

    def answered_by(self):
        call = self.begin("a question")
        call.abandon()
        return call.candidate

    def fails(self):
        call = self.begin("a question")
        name = call.candidate
        call.fail(RuntimeError("down"))
        call.abandon()
        return name


@pytest.fixture
def clock():
    return ManualClock(1_000_000.0)


@pytest.fixture
def state(clock):
    return Flaky(clock=clock)


@pytest.fixture
def quiet(state, clock):
    """Make a worker over a router."""

    def make(router, **settings):
        return Quiet(router, state, clock, **settings)

    return make


@pytest.fixture
def worker(quiet, clock):
    """Make a worker whose router chooses best, then middle."""

    def make(**settings):
        router = Router(
            [
                Candidate("best", 1.0, 2.0, prior_quality=0.9, max_concurrency=1),
                Candidate("middle", 2.0, 4.0, prior_quality=0.5),
            ],
            exploration=0.0,
            clock=clock,
            **settings,
        )
        return quiet(router, cooldown_seconds=30.0)

    return make


@pytest.fixture
def here(worker):
    return worker()


@pytest.fixture
def there(worker):
    return worker()
