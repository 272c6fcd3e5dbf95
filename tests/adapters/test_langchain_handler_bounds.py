"""The books stay small and right: many calls, threads, nesting, odd orders."""

import gc
import threading
import tracemalloc
from uuid import uuid4

import pytest
from langchain_core.callbacks import CallbackManager
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from mixllm_integrations.langchain import (
    CandidateModel,
    MixLLMCallbackHandler,
    MixLLMChatModel,
)
from mixllm_integrations.testing import ManualClock


def answer(asked=10, answered=2):
    usage = {
        "input_tokens": asked,
        "output_tokens": answered,
        "total_tokens": asked + answered,
    }
    return AIMessage("", usage_metadata=usage)


def result(message):
    return LLMResult(generations=[[ChatGeneration(message=message)]])


def opened(books, parent_run_id=None, **record):
    """Open a routed call as a routed model does."""
    manager = CallbackManager.configure([books])
    manager.parent_run_id = parent_run_id
    record = {"decision_id": uuid4().hex, "candidate": "small", **record}
    manager.add_metadata({"mixllm": record}, inherit=False)
    return manager.on_chain_start(None, {})


def begun(chain):
    (llm,) = chain.get_child().on_chat_model_start({}, [[]])
    return llm


def call(books, **record):
    chain = opened(books, cost=0.5, **record)
    begun(chain).on_llm_end(result(answer()))
    chain.on_chain_end({"output": None})


def kept(books):
    return (len(books._open), len(books._chains), len(books._llms))


def test_memory_does_not_grow_with_the_number_of_calls():
    books = MixLLMCallbackHandler(max_calls=50, max_sessions=20, reference="small")

    def run(count):
        for number in range(count):
            call(books, session=f"session {uuid4().hex}", predicted_costs={"small": 1})
            if number % 10 == 0:  # a stream that is left lying about
                begun(opened(books))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = run(400)
        grown = run(1_000) - before
    finally:
        tracemalloc.stop()
    assert grown < 100_000  # 1,000 calls would take a megabyte
    assert len(books._ended) == len(books._decided) == 50
    assert len(books.sessions) == 20
    assert max(kept(books)) <= 50


def test_threads_and_sessions_lose_nothing():
    books = MixLLMCallbackHandler(max_sessions=4)

    def work(session):
        for _ in range(200):
            call(books, session=session)

    threads = [threading.Thread(target=work, args=(f"s{n % 4}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert books.totals.calls == 1_600
    assert {name: sums.calls for name, sums in books.sessions.items()} == {
        f"s{n}": 400 for n in range(4)
    }
    assert kept(books) == (0, 0, 0)


def test_the_books_can_be_read_while_they_are_written():
    books, done = MixLLMCallbackHandler(), threading.Event()

    def work():
        for _ in range(300):
            call(books, session=uuid4().hex)
        done.set()

    writer = threading.Thread(target=work)
    writer.start()
    while not done.is_set():
        totals = books.totals
        assert totals.output_tokens == 2 * totals.calls
        assert all(report.cost == 0.5 for report in books.calls)
        assert all(sums.calls == 1 for sums in books.sessions.values())
    writer.join()


async def test_awaited_calls_are_booked_on_the_thread_of_the_loop(pool):
    seen = set()
    books = MixLLMCallbackHandler(clock=lambda: seen.add(threading.get_ident()) or 0.0)
    async for _ in pool().astream("q", {"callbacks": [books]}):
        pass
    assert seen == {threading.get_ident()}  # a hop to another one costs more than it


def test_a_stream_that_the_garbage_collector_closes_does_not_lock_the_books(pool):
    clock = ManualClock()
    books = MixLLMCallbackHandler(clock=lambda: collect() or clock())
    streams = []

    def collect():  # the clock is read where the books are locked
        while streams:
            streams.pop().close()

    left = pool().stream("q", {"callbacks": [books]})
    next(left)
    streams.append(left)
    del left
    caller = threading.Thread(target=call, args=(books,), daemon=True)
    caller.start()
    caller.join(10)
    assert not caller.is_alive()
    assert (books.totals.calls, books.totals.abandoned) == (2, 1)


def test_a_routed_model_that_is_a_candidate_is_counted_with_the_answer(pool):
    inside = CandidateModel(
        model=pool(),
        name="inside",
        input_cost_per_million_tokens=10.0,
        output_cost_per_million_tokens=10.0,
    )
    books = MixLLMCallbackHandler()
    MixLLMChatModel(candidates=[inside]).invoke("q", {"callbacks": [books]})
    totals = books.totals
    assert totals.calls_by_candidate == {"inside": 1}
    assert (totals.calls, totals.input_tokens, totals.output_tokens) == (1, 10, 2)
    assert kept(books) == (0, 0, 0)


def test_a_routed_call_that_a_candidate_makes_by_itself_is_a_call_of_its_own():
    books = MixLLMCallbackHandler()
    outer = opened(books, cost=1.0)
    llm = begun(outer)
    inner = opened(books, parent_run_id=llm.run_id, cost=0.25, candidate="tiny")
    begun(inner).on_llm_end(result(answer(5, 1)))
    inner.on_chain_end({})
    llm.on_llm_end(result(answer()))
    outer.on_chain_end({})
    assert [(r.candidate, r.input_tokens, r.cost) for r in books.calls] == [
        ("tiny", 5, 0.25),
        ("small", 10, 1.0),
    ]


def test_a_chain_run_that_ends_before_its_llm_run_has_its_tokens():
    books = MixLLMCallbackHandler()
    chain = opened(books, cost=0.5)
    llm, said = begun(chain), answer()
    chain.on_chain_end({"output": said})
    llm.on_llm_end(result(said))
    assert (books.totals.input_tokens, books.totals.output_tokens) == (10, 2)
    assert kept(books) == (0, 0, 0)


@pytest.mark.parametrize("late", ["end", "token"])
def test_an_attempt_that_still_hangs_when_another_has_answered_adds_nothing(late):
    books = MixLLMCallbackHandler()
    chain = opened(books, cost=0.5)
    hanging = begun(chain)
    said = answer()
    begun(chain).on_llm_end(result(said))
    chain.on_chain_end({"output": said})
    if late == "end":
        hanging.on_llm_end(result(answer(1_000, 1_000)))
    else:
        hanging.on_llm_new_token("late")
    assert (books.totals.input_tokens, books.totals.output_tokens) == (10, 2)
    assert books.calls[0].time_to_first_token_seconds is None
    assert kept(books) == (0, 0, 0)


def test_a_call_that_is_given_up_may_still_end():
    books = MixLLMCallbackHandler(max_calls=1)
    chain = opened(books)
    llm = begun(chain)
    call(books)
    llm.on_llm_end(result(answer()))
    chain.on_chain_end({"output": None})
    totals = books.totals
    assert (totals.calls, totals.abandoned, totals.answered) == (2, 1, 1)
    assert totals.cost == 0.5


def test_other_chains_and_models_leave_no_trace():
    books = MixLLMCallbackHandler()
    manager = CallbackManager.configure([books])
    chain = manager.on_chain_start(None, {})
    llm = begun(chain)
    llm.on_llm_new_token("a")
    llm.on_llm_end(result(answer()))
    chain.on_chain_end({})
    assert books.totals.calls == 0
    assert kept(books) == (0, 0, 0)
