import io

import pytest
from rich.console import Console

from mixllm_integrations import Candidate, Router, RoutingRecord
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.tagging import RecordTagger
from mixllm_integrations.testing import ScriptedChatModel
from mixllm_integrations.training import LLMTagger, tag_records
from mixllm_integrations.training.progress import DelayedBar


def tag_of(text: str) -> str:
    return f"topic of {text.split()[-1]}"


def record(query, candidate="small", **kwargs):
    return RoutingRecord(query, candidate, 1.0, **kwargs)


class Notes:
    """A tagger that notes what it is asked."""

    def __init__(self):
        self.calls = []

    def tag(self, queries):
        self.calls.append(list(queries))
        return [(tag_of(query),) for query in queries]


def test_records_get_the_tags_of_their_query_with_one_question_each():
    given = [record("q 1"), record("q 2", cost=0.5), record("q 1", "large")]
    notes = Notes()
    tagged = tag_records(iter(given), notes)
    assert [r.tags for r in tagged] == [(tag_of(r.query),) for r in given]
    assert tagged[1].cost == 0.5
    assert [r.candidate for r in tagged] == ["small", "small", "large"]
    assert notes.calls == [["q 1", "q 2"]]
    assert given[0].tags == ()


def test_tags_that_are_there_stay_unless_they_are_to_be_replaced():
    given = [record("q 1", tags=("law",)), record("q 1", "large"), record("q 2")]
    notes = Notes()
    assert [r.tags for r in tag_records(given, notes)] == [
        ("law",),
        (),
        ("topic of 2",),
    ]
    replaced = tag_records(given, notes, replace=True)
    assert [r.tags for r in replaced] == [
        ("topic of 1",),
        ("topic of 1",),
        ("topic of 2",),
    ]
    assert notes.calls == [["q 2"], ["q 1", "q 2"]]


def test_where_all_records_have_tags_the_tagger_is_not_asked():
    notes = Notes()
    assert tag_records([], notes) == []
    assert tag_records([record("q", tags=("a",))], notes)[0].tags == ("a",)
    assert notes.calls == []


def test_a_tagger_that_loses_rows_is_an_error():
    class Short(RecordTagger):
        def tag(self, queries):
            return []

    with pytest.raises(ConfigurationError, match="0 rows of tags for 1 queries"):
        tag_records([record("q")], Short({}))


def test_a_router_learns_the_domains_that_a_model_names():
    kinds = ("poem about birds", "sum of numbers")
    given = [
        RoutingRecord(f"{kinds[n % 2]} {n}", name, float(n % 2 == place))
        for n in range(60)
        for place, name in enumerate(("poet", "clerk"))
    ]
    model = ScriptedChatModel(
        answers=lambda m: '["poetry"]' if "poem" in m[-1].text else '["arithmetic"]'
    )
    router = Router([Candidate("poet", 1, 1), Candidate("clerk", 1, 1)])
    router.fit(tag_records(given, LLMTagger(model)))
    assert len(model.calls) == 60
    assert router.route("poem about birds and trees").candidate == "poet"
    assert router.route("sum of many numbers").candidate == "clerk"


def drawn(**change) -> str:
    """What a bar of three steps writes."""
    terminal = change.pop("terminal", True)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with DelayedBar(3, label="tagging", console=console, **change) as bar:
        for _ in range(3):
            bar.advance()
    assert bar.done == 3
    return console.file.getvalue()


def test_a_bar_appears_when_it_takes_long():
    assert "3/3" in drawn(after_seconds=0.0)
    assert drawn(after_seconds=60.0) == ""


def test_a_bar_appears_only_on_a_terminal_unless_it_is_asked_for():
    assert drawn(after_seconds=0.0, terminal=False) == ""
    assert "3/3" in drawn(shown=True, terminal=False)
    assert drawn(after_seconds=0.0, shown=False) == ""


def test_a_quick_run_writes_nothing(capfd):
    LLMTagger(ScriptedChatModel(answers=['["sums"]'])).tag(["q 1", "q 2"])
    assert capfd.readouterr() == ("", "")
