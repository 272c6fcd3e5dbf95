"""Many callers at servers that misbehave: no call is lost, nothing is left behind."""

import asyncio
import faulthandler
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mixllm_integrations.benchmark.load.chaos import run_chaos
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing.wire import FAULTS, Fault, LoopbackServer

openai = pytest.importorskip("langchain_openai")
pytestmark = pytest.mark.network

DEADLOCK_SECONDS = 240.0
CALLS, CALLERS = 600, 80


@pytest.fixture(scope="module")
def chaos():
    """The figures of one run with 30 % faults and a candidate that goes away."""
    faulthandler.dump_traceback_later(DEADLOCK_SECONDS, exit=True, file=sys.__stderr__)
    try:
        return run_chaos(callers=CALLERS, calls=CALLS, timeout_seconds=3.0, seed=1)
    finally:
        faulthandler.cancel_dump_traceback_later()


def test_no_call_is_lost_while_a_candidate_lives(chaos):
    assert chaos.lost == {}
    assert chaos.answered + chaos.broken_streams == CALLS


def test_the_faults_were_there(chaos):
    assert chaos.failovers > 0.2 * CALLS
    assert chaos.down_seconds > 0
    assert len(chaos.answers_by_candidate) == 3


def test_no_call_counts_as_load_at_the_end(chaos):
    assert chaos.in_flight == {"small": 0, "middle": 0, "large": 0}


def test_each_attempt_is_logged_once_with_its_one_outcome(chaos):
    books = chaos.books
    assert (books.without_outcome, books.with_several, books.unknown) == (0, 0, 0)
    assert books.decisions == books.outcomes
    assert chaos.unlogged == 0
    assert books.outcomes - books.failed == chaos.answered
    # What failed before a stream that broke off stands on no answer.
    assert books.failed >= chaos.failovers + chaos.broken_streams


def test_the_books_agree_to_the_last_cent(chaos):
    assert chaos.answers_cost > 0
    assert chaos.books.cost == pytest.approx(chaos.answers_cost, abs=1e-9)
    assert chaos.records_cost == pytest.approx(chaos.answers_cost, abs=1e-9)


def test_no_thread_and_no_task_is_left(chaos):
    assert (chaos.threads_left, chaos.tasks_left) == (0, 0)


@pytest.mark.parametrize(
    "wrong",
    [{"callers": 0}, {"calls": 0}, {"fault_share": 1.5}, {"timeout_seconds": 0.0}],
)
def test_a_run_that_cannot_be_made_is_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        run_chaos(**wrong)


@pytest.fixture
def servers():
    with LoopbackServer() as first, LoopbackServer() as second:
        yield first, second


@pytest.fixture
def routed(servers):
    """Route over two real clients, each of a server of its own, the first better."""

    def make(*, timeout=5.0, **settings):
        candidates = [
            CandidateModel(
                model=openai.ChatOpenAI(
                    model=name,
                    base_url=server.openai_url,
                    api_key="unused",
                    max_retries=0,
                    timeout=timeout,
                    stream_usage=True,
                ),
                input_cost_per_million_tokens=1.0,
                output_cost_per_million_tokens=2.0,
                prior_quality=quality,
            )
            for name, server, quality in zip(
                ("first", "second"), servers, (0.9, 0.3), strict=True
            )
        ]
        model = MixLLMChatModel(candidates=candidates, **settings)
        model.router.exploration = 0.0
        return model

    return make


def who(answer):
    return answer.response_metadata["mixllm"]["candidate"]


def test_who_is_down_is_hardly_asked_and_soon_asked_again(servers, routed):
    model = routed(cooldown_seconds=0.3)
    servers[0].close()
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: model.invoke(f"q {n}"), range(80)))
    probes = 1 + (time.monotonic() - began) / 0.3
    tried = sum(bool(a.response_metadata["mixllm"]["attempts"]) for a in answers)
    assert {who(answer) for answer in answers} == {"second"}
    assert tried <= 8 + probes  # those under way when the first one failed
    servers[0].come_back()
    deadline = time.monotonic() + 20.0
    while who(model.invoke("q")) != "first":
        assert time.monotonic() < deadline
    assert [who(model.invoke("q")) for _ in range(3)] == ["first"] * 3


def test_when_nobody_lives_each_is_named_and_nothing_is_left(servers, routed, load_of):
    model = routed()
    for server in servers:
        server.close()
    with pytest.raises(ExceptionGroup) as failure:
        model.invoke("q")
    told = [type(error).__name__ for error in failure.value.exceptions]
    assert [name.endswith("ConnectionError") for name in told] == [True, True]
    assert load_of(model) == 0


async def test_a_patient_call_outlives_an_outage_of_everybody(servers, routed, load_of):
    model = routed(give_up_after_seconds=30.0)
    for server in servers:
        server.close()
    waiting = asyncio.gather(*(model.ainvoke(f"q {n}") for n in range(10)))
    thread = asyncio.to_thread(model.invoke, "q")
    asking = asyncio.ensure_future(thread)
    await asyncio.sleep(0.2)
    servers[1].come_back()
    answers = [*await waiting, await asking]
    assert {who(answer) for answer in answers} == {"second"}
    assert load_of(model) == 0


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_nobody_is_asked_before_the_time_that_it_named(how, servers, routed):
    arrived = []

    def too_many(number):
        arrived.append(time.monotonic())
        headers = {"Retry-After-Ms": "400"}
        return Fault(status=429, headers=headers) if number == 0 else None

    for name, server in zip(("first", "second"), servers, strict=True):
        server.model(name, answers=["Here."]).misbehave(too_many)
    model = routed(give_up_after_seconds=30.0)
    if how == "invoke":
        assert model.invoke("q").text == "Here."
    elif how == "ainvoke":
        assert (await model.ainvoke("q")).text == "Here."
    elif how == "stream":
        assert "".join(chunk.text for chunk in model.stream("q")) == "Here."
    else:
        assert [c.text async for c in model.astream("q") if c.text] == ["Here."]
    first, _, third = arrived
    assert third - first >= 0.4


async def read(model, how, said):
    """Read a stream into a list."""
    if how == "stream":
        for chunk in model.stream("q"):
            said.append(chunk.text)
    else:
        async for chunk in model.astream("q"):
            said.append(chunk.text)


CUT = {"cut": Fault(after_events=3), "told": Fault(after_events=3, status=500)}


@pytest.mark.parametrize("fault", CUT)
@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_a_stream_that_breaks_in_its_middle_raises_and_is_no_load(
    how, fault, servers, routed, load_of, tmp_path
):
    servers[0].model("first", answers=["one two three four"]).misbehave(CUT[fault])
    store = f"sqlite:///{tmp_path / 'log.db'}"
    model = routed(give_up_after_seconds=30.0, store=store)
    said = []
    with pytest.raises(Exception) as failure:  # noqa: PT011 - each client has its own
        await read(model, how, said)
    assert not isinstance(failure.value, ExceptionGroup)
    assert load_of(model) == 0
    assert "first" in model.dispatcher.cooldown.due()
    assert servers[1].requests == []
    assert "".join(said) in ("one two", "one two three")
    decision, outcome = model.dispatcher.journal.store.events()
    assert decision.decision_id == outcome.decision_id
    assert outcome.payload["error"].startswith("broken off by")


@pytest.mark.parametrize("name", sorted(set(FAULTS) - {"slow", "hang"}))
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_every_kind_of_fault_sends_a_call_elsewhere(
    name, how, servers, routed, load_of
):
    servers[0].model("first").misbehave(FAULTS[name])
    model = routed()
    answer = model.invoke("q") if how == "invoke" else await model.ainvoke("q")
    assert who(answer) == "second"
    assert load_of(model) == 0


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_a_client_that_loses_patience_sends_a_call_elsewhere(
    how, servers, routed, load_of
):
    servers[0].model("first").misbehave(Fault(hang_seconds=math.inf))
    model = routed(timeout=0.2)
    answer = model.invoke("q") if how == "invoke" else await model.ainvoke("q")
    assert who(answer) == "second"
    assert load_of(model) == 0


@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_an_answer_without_a_word_is_an_answer(how, servers, routed):
    servers[0].model("first", answers=[""])
    model = routed()
    if how == "invoke":
        answer = model.invoke("q")
    else:
        first, *rest = model.stream("q")
        answer = sum(rest, first)
    assert (answer.text, who(answer)) == ("", "first")
    assert model.dispatcher.cooldown.due() == {}
    assert servers[1].requests == []
