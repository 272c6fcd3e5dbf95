"""What was paid for is kept, and a spending limit is never passed."""

import asyncio
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixllm_integrations import ConfigurationError, RoutingRecord, StateFormatError
from mixllm_integrations.training.labelling.records_file import RecordsFile
from mixllm_integrations.training.labelling.till import LimitReachedError, Till
from mixllm_integrations.training.labelling.workbook import Workbook


class RefusedError(Exception):
    status_code = 429


def buying(till, digest="d", *, bound=1.0, cost=0.25, error=None, gate=None):
    async def call():
        if gate is not None:
            await gate.wait()
        if error is not None:
            raise error
        return {"said": digest}, cost

    return till.buy(call, bound=bound, candidate="small", digest=digest)


def test_what_was_paid_for_is_there_after_a_restart(tmp_path):
    file = tmp_path / "sub" / "x.work"
    with Workbook(file) as book:
        book.begin("call", 1.0)
        book.end("call", 0.25, candidate="small", digest="d", value={"said": "ä"})
        assert book.get("d").value == {"said": "ä"}
        assert book.get("other") is None
    with Workbook(file) as book:
        assert book.get("d") == ({"said": "ä"}, 0.25)
        assert book.spent() == 0.25


def test_a_call_that_a_killed_run_had_begun_counts_as_spent_in_full(tmp_path):
    file = tmp_path / "x.work"
    book = Workbook(file)
    book.begin("lost", 0.75)
    book.begin("ended", 0.5)
    book.end("ended", 0.0, candidate="small")
    assert book.spent() == 0.0
    book.close()  # as the system does it
    with Workbook(file) as again:
        assert again.spent() == 0.75
    with Workbook(file) as again:
        assert again.spent() == 0.75


def test_two_runs_cannot_hold_one_workbook(tmp_path):
    with (
        Workbook(tmp_path / "x.work"),
        pytest.raises(ConfigurationError, match="in use by another run"),
    ):
        Workbook(tmp_path / "x.work")


def test_what_is_no_workbook_is_told_of(tmp_path):
    (tmp_path / "x.work").write_bytes(b"something else " * 100)
    with pytest.raises(StateFormatError, match="delete it"):
        Workbook(tmp_path / "x.work")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        Workbook(tmp_path / "x.work" / "y.work")
    with Workbook(tmp_path / "y.work") as book:
        book.end("a", 0.0, candidate="b", digest="d", value=1)
        book._database.execute("UPDATE paid SET value = '{'")
        with pytest.raises(StateFormatError):
            book.get("d")
        book._database.execute("DROP TABLE paid")
        with pytest.raises(StateFormatError, match="no such table"):
            book.get("d")


async def test_a_call_is_paid_and_kept(tmp_path):
    with Workbook(tmp_path / "x.work") as book:
        till = Till(book, 2.0)
        assert await buying(till) == {"said": "d"}
        assert (till.spent, book.spent()) == (0.25, 0.25)
        await buying(till, "e", cost=None)  # nobody knows: as much as it may
        assert till.spent == 1.25
        again = Till(book, 2.0)
        assert (again.spent, again.spent_in_all) == (0.0, 1.25)


async def test_who_refuses_is_not_paid_and_who_is_lost_is(tmp_path):
    with Workbook(tmp_path / "x.work") as book:
        till = Till(book, 3.0)
        with pytest.raises(RefusedError):
            await buying(till, error=RefusedError())
        assert (till.spent, book.spent()) == (0.0, 0.0)
        with pytest.raises(TimeoutError):
            await buying(till, error=TimeoutError())
        assert (till.spent, book.spent()) == (1.0, 1.0)
        assert book.get("d") is None


async def test_a_call_waits_for_the_money_of_those_under_way(tmp_path):
    with Workbook(tmp_path / "x.work") as book:
        till, gate = Till(book, 1.5), asyncio.Event()
        first = asyncio.create_task(buying(till, "a", gate=gate))
        await asyncio.sleep(0)
        second = asyncio.create_task(buying(till, "b"))
        await asyncio.sleep(0.01)
        assert not second.done()
        gate.set()
        assert await second == {"said": "b"}
        await first
        assert till.spent == 0.5
        assert not till.closed


async def test_when_the_money_is_gone_nothing_more_is_bought(tmp_path):
    with Workbook(tmp_path / "x.work") as book:
        till = Till(book, 1.25)
        await buying(till, "a", cost=0.5)
        with pytest.raises(LimitReachedError):
            await buying(till, "b", bound=1.0)
        assert till.closed
        with pytest.raises(LimitReachedError):  # a cheap one would skew the labels
            await buying(till, "c", bound=0.1)
        assert book.spent() == 0.5


@settings(max_examples=40)
@given(
    limit=st.floats(0.0, 5.0),
    concurrency=st.integers(1, 6),
    calls=st.lists(
        st.tuples(
            st.floats(0.0, 1.0),
            st.one_of(st.none(), st.floats(0.0, 1.0)),
            st.booleans(),
        ),
        max_size=15,
    ),
)
def test_no_order_of_calls_passes_the_limit(
    tmp_path_factory, limit, concurrency, calls
):
    async def run(book):
        till = Till(book, limit, concurrency=concurrency)
        tasks = [
            buying(
                till,
                str(n),
                bound=bound,
                cost=None if share is None else bound * share,
                error=TimeoutError() if fails else None,
            )
            for n, (bound, share, fails) in enumerate(calls)
        ]
        await asyncio.gather(*tasks, return_exceptions=True)
        return till.spent

    file = tmp_path_factory.mktemp("till") / "x.work"
    with Workbook(file) as book:
        spent = asyncio.run(run(book))
        assert spent <= limit * (1 + 1e-9)
        assert book.spent() == pytest.approx(spent)


RECORD = RoutingRecord("ä?", "small", 0.5, 3, 4, 0.1, 0.2, ("t",))


def test_records_are_appended_and_read_again(tmp_path):
    file = tmp_path / "sub" / "records.jsonl"
    with RecordsFile(file) as out:
        assert not out.has("q", "small", "exact")
        out.append(RECORD, query_id="q", graded_by="exact")
        assert out.has("q", "small", "exact")
    with RecordsFile(file) as out:
        assert out.all() == [RECORD]
        assert out.has("q", "small", "")
        with pytest.raises(ConfigurationError, match="graded in another way"):
            out.has("q", "small", "judge")


def test_a_line_that_was_cut_off_is_written_anew(tmp_path):
    file = tmp_path / "records.jsonl"
    with RecordsFile(file) as out:
        out.append(RECORD, query_id="q", graded_by="exact")
    whole = file.read_bytes()
    file.write_bytes(whole + b"\n" + whole[:-20])
    with RecordsFile(file) as out:
        assert out.all() == [RECORD]
        out.append(RECORD, query_id="r", graded_by="exact")
    assert file.read_bytes().count(b"\n") == 3
    with RecordsFile(file) as out:
        assert out.all() == [RECORD, RECORD]


@pytest.mark.parametrize("text", ["{}\n", "no JSON\n", '{"query_id": 1}\n', "[]\n"])
def test_another_file_is_not_appended_to(tmp_path, text):
    file = tmp_path / "records.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 1 was not written"):
        RecordsFile(file)
    assert file.read_text(encoding="utf-8") == text


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be written"):
        RecordsFile(tmp_path)


def test_a_killed_run_leaves_no_lock_behind(tmp_path):
    book = Workbook(tmp_path / "x.work")
    book.begin("a", 0.5)
    book._database.close()  # what the system does to a killed process
    with Workbook(tmp_path / "x.work") as again:
        assert again.spent() == 0.5
    rows = sqlite3.connect(tmp_path / "x.work")
    assert rows.execute("SELECT digest FROM paid").fetchall() == [("lost:a",)]
    rows.close()
