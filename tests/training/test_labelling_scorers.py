"""Grades by a reference: the same text, a pattern, a schema, tests of code."""

import time
from pathlib import Path

import pytest

from mixllm_integrations import ConfigurationError
from mixllm_integrations.training import PromptItem
from mixllm_integrations.training.labelling import code_tests
from mixllm_integrations.training.labelling.code_tests import code_in, passes
from mixllm_integrations.training.labelling.scorers import (
    by_own,
    by_reference,
    fits_schema,
    is_same,
    matches,
)

ASKED = (("user", "?"),)


def test_the_same_answer_may_differ_in_case_spaces_and_a_full_stop():
    assert is_same("  Paris.\n", "paris")
    assert is_same('"Paris"', "Paris")
    assert not is_same("Not Paris", "Paris")


def test_a_pattern_is_searched_in_every_line():
    assert matches("I think\nAnswer: 42", r"^Answer: \d+$")
    assert not matches("Answer: none", r"^Answer: \d+$")
    with pytest.raises(ConfigurationError, match="no pattern"):
        matches("a", "(")


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
}


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ('{"n": 3}', True),
        ('```json\n{"n": 3}\n```', True),
        ('{"n": "3"}', False),
        ("{}", False),
        ("no JSON", False),
        ("[" * 100_000, False),
    ],
)
def test_an_answer_fits_a_schema_or_not(answer, fits):
    assert fits_schema(answer, SCHEMA) is fits
    assert fits_schema(answer, '{"type": "object", "required": ["n"]}') is (
        fits or answer == '{"n": "3"}'
    )


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("no JSON", "no JSON schema"),
        (3, "no JSON schema"),
        ({"type": "nonsense"}, "no JSON schema"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "refers to another document"),
    ],
)
def test_a_schema_that_is_none_is_an_error_and_nothing_is_fetched(schema, told):
    with pytest.raises(ConfigurationError, match=told):
        fits_schema("{}", schema)


def test_without_jsonschema_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jsonschema", None)
    with pytest.raises(ConfigurationError, match=r"mixllm-integrations\[judge\]"):
        fits_schema("{}", {})


GOOD = "Sure!\n```python\ndef add(a, b):\n    return a + b\n```\nDone."
TESTS = "assert add(2, 2) == 4"


def test_code_is_taken_out_of_its_fences():
    assert code_in(GOOD) == "def add(a, b):\n    return a + b\n"
    assert code_in("x = 1") == "x = 1"


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        (GOOD, True),
        ("print('noise')\n" + code_in(GOOD), True),
        ("def add(a, b):\n    return a - b", False),
        ("no code at all", False),
        ("import sys\nsys.exit(0)", False),
        ("import os\nos._exit(0)", False),
        ("raise SystemExit", False),
    ],
)
def test_tests_tell_right_code_from_wrong(answer, passed):
    assert passes(answer, TESTS) is passed


def test_endless_and_greedy_code_fails_in_time():
    began = time.monotonic()
    assert not passes("while True:\n    pass", TESTS, timeout_seconds=1.0)
    assert time.monotonic() - began < 60
    greedy = "held = bytearray(2_000_000_000)\n" + code_in(GOOD)
    assert not passes(greedy, TESTS, memory_bytes=500_000_000)
    assert passes(code_in(GOOD), TESTS, memory_bytes=500_000_000)


def test_code_sees_neither_the_environment_nor_the_folder_of_the_caller(monkeypatch):
    monkeypatch.setenv("MY_SECRET_KEY", "sk-1")
    assert passes(
        "import os",
        "assert 'MY_SECRET_KEY' not in os.environ\n"
        f"assert os.getcwd() != {str(Path.cwd())!r}",
    )


async def test_code_runs_only_if_it_is_allowed():
    item = PromptItem(ASKED, TESTS, "code")
    with pytest.raises(ConfigurationError, match="--allow-code"):
        await by_reference("code", item, GOOD, allow_code=False)
    assert await by_reference("code", item, GOOD, allow_code=True) == 1.0
    assert code_tests.__doc__
    assert "no sandbox" in code_tests.__doc__


async def test_references_are_needed_and_used():
    with pytest.raises(ConfigurationError, match="'regex' needs a reference"):
        await by_reference("regex", PromptItem(ASKED), "a", allow_code=False)
    item = PromptItem(ASKED, ["4", "four"])
    assert await by_reference("exact", item, "Four", allow_code=False) == 1.0
    assert await by_reference("exact", item, "5", allow_code=False) == 0.0


async def test_a_function_of_ones_own_grades_also_as_a_coroutine():
    async def slow(item, answer):
        return 0.25

    item = PromptItem(ASKED)
    assert await by_own(lambda i, a: a == "x", item, "x") == 1.0
    assert await by_own(slow, item, "x") == 0.25
    with pytest.raises(ConfigurationError, match="a grade must be"):
        await by_own(lambda i, a: 7, item, "x")
