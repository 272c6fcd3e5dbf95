"""Signals that an application tells, and how those of messages are read."""

import uuid

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from pydantic import BaseModel, ValidationError

from mixllm_integrations.core.errors import ConfigurationError, UnknownDecisionError
from mixllm_integrations.core.types import IMPLICIT_SIGNALS
from mixllm_integrations.langchain.binding import SchemaBinding
from mixllm_integrations.langchain.calls.signals import is_cut_short, refused_call


class Sum(BaseModel):
    """A sum."""

    total: int


def decision_of(answer):
    return answer.response_metadata["mixllm"]["decision_id"]


def known_of(model, decision_id):
    return model.router._ledger.get(decision_id).signals


@pytest.mark.parametrize("signal", IMPLICIT_SIGNALS)
def test_an_application_may_tell_what_it_noticed(pool, signal):
    model = pool()
    answer = model.invoke("q")
    assert model.record_signal(answer, signal) is True
    assert model.record_signal(decision_of(answer), signal) is False
    assert known_of(model, decision_of(answer)) == {signal}


def test_a_run_names_its_answer(pool):
    model, run_id = pool(), uuid.uuid4()
    answer = model.invoke("q", {"run_id": run_id})
    assert model.record_signal(run_id, "regenerate")
    assert known_of(model, decision_of(answer)) == {"regenerate"}


def test_a_structured_answer_with_its_message_names_itself(pool):
    model = pool()
    answer = model.with_structured_output(Sum, include_raw=True).invoke("5")
    assert model.record_signal(answer, "tool_error")
    assert known_of(model, decision_of(answer["raw"])) == {"tool_error"}


def test_what_is_unknown_is_said(pool):
    model = pool()
    for unknown in ("nobody", uuid.uuid4()):
        with pytest.raises(UnknownDecisionError):
            model.record_signal(unknown, "regenerate")
    with pytest.raises(ConfigurationError, match="boredom"):
        model.record_signal(model.invoke("q"), "boredom")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"finish_reason": "stop"},
        {"stop_reason": None},
        {"finish_reason": 2},
        {"incomplete_details": None},
        {"incomplete_details": {"reason": "content_filter"}},
    ],
)
def test_an_answer_that_ended_by_itself_is_not_cut_short(metadata):
    assert not is_cut_short(metadata)


def test_only_the_results_of_the_latest_calls_are_looked_at():
    def called(decision_id, *statuses):
        record = {"mixllm": {"decision_id": decision_id}}
        results = [
            ToolMessage("result", tool_call_id=str(n), status=status)
            for n, status in enumerate(statuses)
        ]
        return [AIMessage("", response_metadata=record), *results]

    failed = [HumanMessage("q"), *called("d1", "success", "error", "success")]
    assert refused_call(failed) == "d1"
    assert refused_call([*failed, *called("d2", "error")]) == "d2"
    assert refused_call([*failed, *called("d2", "success")]) is None
    assert refused_call([*failed, HumanMessage("and?")]) is None
    assert refused_call(failed[2:]) is None
    assert refused_call([]) is None


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        (Sum, "Sum"),
        (Sum.model_json_schema(), "Sum"),
        ({"name": "Sum", "parameters": {}}, "Sum"),
        ({"type": "object"}, ""),
        (None, ""),  # as some models take it with method="json_mode"
    ],
)
def test_a_schema_is_called_what_it_says(schema, name):
    assert SchemaBinding(schema, include_raw=False, kwargs={}).name == name


def test_a_parsing_error_counts_though_tools_were_offered_too():
    schema = SchemaBinding(Sum, include_raw=True, kwargs={"tools": [Sum]})
    answer = {"raw": AIMessage(""), "parsed": None, "parsing_error": None}
    assert schema.is_filled_by(answer)
    assert not schema.is_filled_by({**answer, "parsing_error": ValueError()})


def test_an_error_of_another_class_is_not_the_answers():
    class Other(Sum):
        """What a caller passed."""

    schema = SchemaBinding(Sum, include_raw=False, kwargs={})
    for model, is_broken in ((Sum, True), (Other, False)):
        with pytest.raises(ValidationError) as caught:
            model(total="x")
        assert schema.is_broken_by(caught.value) is is_broken
    assert not schema.is_broken_by(TimeoutError())
