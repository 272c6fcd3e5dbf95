"""The public fakes do what they say, so that users' tests can rely on them."""

import subprocess
import sys
import time

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from mixllm_integrations.testing import ManualClock, ScriptedChatModel
from mixllm_integrations.testing.schema import filled


def test_answers_come_one_after_the_other_and_from_the_start_again():
    model = ScriptedChatModel(answers=["a", "b"])
    assert [model.invoke("q").content for _ in range(3)] == ["a", "b", "a"]


def test_an_answer_can_be_a_function_of_the_messages():
    model = ScriptedChatModel(answers=lambda messages: messages[-1].text.upper())
    assert model.invoke("loud").content == "LOUD"


def test_an_answer_can_be_a_message_with_tool_calls():
    call = {"name": "add", "args": {"a": 1}, "id": "1", "type": "tool_call"}
    model = ScriptedChatModel(answers=[AIMessage("", tool_calls=[call])])
    assert model.invoke("q").tool_calls == [call]


def test_calls_are_noted():
    model = ScriptedChatModel(stop=["Z"])
    model.invoke([HumanMessage("q")], seed=1)
    (call,) = model.calls
    assert call.messages[0].content == "q"
    assert call.stop == ["Z"]
    assert call.kwargs == {"seed": 1}


def test_errors_come_at_their_turn():
    model = ScriptedChatModel(answers=["a"], errors=[None, OSError("second")])
    assert model.invoke("q").content == "a"
    with pytest.raises(OSError, match="second"):
        model.invoke("q")
    assert model.invoke("q").content == "a"


def test_words_are_counted_unless_usage_is_given():
    usage = ScriptedChatModel(answers=["one two"]).invoke("a b c").usage_metadata
    assert (usage["input_tokens"], usage["output_tokens"]) == (3, 2)
    model = ScriptedChatModel(reports_usage=False)
    assert model.invoke("q").usage_metadata is None


def test_stop_words_and_limits_cut_the_answer():
    model = ScriptedChatModel(answers=["one two three"])
    assert model.invoke("q", stop=["three"]).content == "one two "
    assert model.invoke("q", max_tokens=1).content == "one"


def test_a_delay_is_real():
    started = time.perf_counter()
    ScriptedChatModel(delay_seconds=0.02).invoke("q")
    assert time.perf_counter() - started >= 0.02


def test_a_clock_moves_only_when_told_and_never_back():
    clock = ManualClock(5.0)
    assert clock() == clock() == 5.0
    clock.advance(0.5)
    assert clock() == 5.5
    with pytest.raises(ValueError, match="go back"):
        clock.advance(-1.0)


def test_a_schema_is_filled_from_the_prompt():
    schema = {
        "properties": {
            "name": {"type": "string"},
            "age": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "ratio": {"type": "number"},
            "kind": {"enum": ["x", "y"]},
            "fixed": {"const": 7},
            "flag": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "inner": {"$ref": "#/$defs/Inner"},
            "none": {"type": "null"},
            "either": {"type": ["integer", "string"]},
        },
        "$defs": {"Inner": {"properties": {"deep": {"type": "string"}}}},
    }
    assert filled(schema, "call 'Ada', aged 36, ratio 0.5") == {
        "name": "Ada",
        "age": 36,
        "ratio": 0.5,
        "kind": "x",
        "fixed": 7,
        "flag": True,
        "tags": ["some tags"],
        "inner": {"deep": "some deep"},
        "none": None,
        "either": 1,
    }


def test_importing_the_fakes_imports_no_framework():
    code = (
        "import sys, mixllm_integrations.testing as t; t.ManualClock;"
        "print([m for m in ('langchain_core', 'llama_index') if m in sys.modules]);"
        "t.ScriptedChatModel; print('llama_index' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


def test_an_unknown_fake_is_an_attribute_error():
    import mixllm_integrations.testing as fakes

    with pytest.raises(AttributeError, match="NoSuchFake"):
        _ = fakes.NoSuchFake
    assert set(fakes.__all__) <= set(dir(fakes))
