"""LangChain fakes whose ranking is known, and a handler that sees every run."""

import asyncio
import inspect
import threading
from collections import Counter

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.rate_limiters import BaseRateLimiter

from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Leave the outcome of a test on it, for the one that compares suites."""
    report = yield
    if report.when == "call" or report.skipped:
        item.outcome = report.outcome
    return report


class RunRecorder(BaseCallbackHandler):
    """Notes each run: kind, name, parent, metadata, how it ended."""

    def __init__(self):
        self.runs = {}
        self._lock = threading.Lock()

    def _start(self, kind, run_id, parent_run_id, kwargs):
        with self._lock:
            self.runs[run_id] = {
                "kind": kind,
                "name": kwargs.get("name"),
                "parent": parent_run_id,
                "tags": list(kwargs.get("tags") or ()),
                "metadata": kwargs.get("metadata") or {},
                "ended": None,
                "output": None,
                "tokens": 0,
            }

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id, **kwargs):
        self._start("chain", run_id, parent_run_id, kwargs)

    def on_chat_model_start(
        self, serialized, messages, *, run_id, parent_run_id, **kwargs
    ):
        self._start("llm", run_id, parent_run_id, kwargs)

    def on_llm_new_token(self, token, *, run_id, **kwargs):
        self.runs[run_id]["tokens"] += 1

    def _end(self, run_id, how, output=None):
        assert self.runs[run_id]["ended"] is None, "a run ended twice"
        self.runs[run_id].update(ended=how, output=output)

    def on_chain_end(self, outputs, *, run_id, **kwargs):
        self._end(run_id, "ok", outputs)

    def on_llm_end(self, response, *, run_id, **kwargs):
        self._end(run_id, "ok", response)

    def on_chain_error(self, error, *, run_id, **kwargs):
        self._end(run_id, type(error).__name__)

    def on_llm_error(self, error, *, run_id, **kwargs):
        self._end(run_id, type(error).__name__)

    def named(self, name):
        return [run for run in self.runs.values() if run["name"] == name]

    def of(self, kind):
        return [run for run in self.runs.values() if run["kind"] == kind]

    def id_of(self, run):
        return next(run_id for run_id, known in self.runs.items() if known is run)

    @property
    def kinds(self):
        return Counter(run["kind"] for run in self.runs.values())


@pytest.fixture
def recorder():
    return RunRecorder()


@pytest.fixture
def scripted_candidate():
    """Make a candidate around a scripted model; usage is 10 and 2 tokens."""

    def make(name, *, quality=0.5, price=1.0, facts=None, **script):
        script.setdefault("usage", (10, 2))
        return CandidateModel(
            model=ScriptedChatModel(model=f"{name}-2024", **script),
            name=name,
            input_cost_per_million_tokens=price,
            output_cost_per_million_tokens=2 * price,
            prior_quality=quality,
            **(facts or {}),
        )

    return make


@pytest.fixture
def pool(scripted_candidate):
    """Make a routed model of "best" and "second"; arguments script them."""

    def make(*, best=None, second=None, **settings):
        candidates = [
            scripted_candidate(
                "second",
                quality=0.5,
                **{"answers": ["From the second."], **(second or {})},
            ),
            scripted_candidate(
                "best", quality=0.9, **{"answers": ["From the best."], **(best or {})}
            ),
        ]
        model = MixLLMChatModel(candidates=candidates, **settings)
        model.router.exploration = 0.0
        return model

    return make


@pytest.fixture
def asked():
    """Return the calls that reached a candidate of a routed model."""

    def calls_of(model, name):
        return model.seat(name).model.calls

    return calls_of


@pytest.fixture
def load_of():
    """Return how many calls a routed model counts as under way."""

    def count(model):
        return len(model.router._waiting._calls)

    return count


@pytest.fixture
def current_loop(request):
    """A loop for LlamaIndex's blocking engines, which would leave theirs open."""
    if inspect.iscoroutinefunction(request.function):
        yield
        return
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


class Counting(BaseRateLimiter):
    """Lets everybody pass, and counts."""

    taken = 0

    def acquire(self, *, blocking=True):
        self.taken += 1
        return True

    async def aacquire(self, *, blocking=True):
        return self.acquire(blocking=blocking)


@pytest.fixture
def limiter():
    return Counting()
