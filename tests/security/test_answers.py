"""Whatever a candidate answers: the answer, or its error; and the books stay whole."""

import json
import math
from email.message import Message

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    LLMResult,
)
from llama_index.core.llms import ChatMessage, ChatResponse
from pydantic import Field

from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.langchain.calls.messages import (
    said_in,
    spent_on,
    with_record,
    with_usage,
)
from mixllm_integrations.langchain.calls.signals import is_cut_short
from mixllm_integrations.langchain.calls.usage_watch import UsageWatch
from mixllm_integrations.llama_index.usage import usage_of
from mixllm_integrations.serving import error_facts, errors
from mixllm_integrations.serving.retry_after import retry_after_seconds
from mixllm_integrations.serving.told import told_cost, told_tokens
from mixllm_integrations.training.tag_answers import (
    normalise_tag,
    read_numbered,
    read_tags,
)
from mixllm_integrations.training.tag_cache import TagCache

FUZZ = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ANY = st.sampled_from(
    [
        *(None, True, -1, 0, 1, 2**63, 10**400, 1e308, float("nan"), float("inf")),
        *("", "x", "\ud800", "length", [], {}, [[]], [1], {"a": 1}, ["a"], b"x"),
        *({"type": "text"}, {"type": "text", "text": 5}, {"type": []}, {5: 6}),
        *({"type": "tool_use", "id": 5, "input": "x"}, {"type": None}, object()),
        {"type": "thinking", "thinking": 3},
    ]
)
COUNTS = ("input_tokens", "output_tokens", "total_tokens", "total_cost")
USAGE = ANY | st.fixed_dictionaries(
    dict.fromkeys(COUNTS[:3], ANY),
    optional={
        "total_cost": ANY,
        "input_token_details": ANY
        | st.fixed_dictionaries({"cache_read": ANY, "cache_creation": ANY}),
        "output_token_details": ANY,
    },
)
METADATA = ANY | st.fixed_dictionaries(
    {},
    optional={
        "finish_reason": ANY,
        "stop_reason": ANY,
        "incomplete_details": ANY | st.fixed_dictionaries({"reason": ANY}),
        "mixllm": ANY,
        "model_name": ANY,
    },
)
CALL = st.fixed_dictionaries({"name": ANY, "args": ANY, "id": ANY, "type": ANY})
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "content": ANY | st.lists(ANY, max_size=3),
        "response_metadata": METADATA,
        "usage_metadata": USAGE,
        "tool_calls": ANY | st.lists(ANY | CALL, max_size=2),
        "invalid_tool_calls": ANY,
        "tool_call_chunks": ANY | st.lists(ANY | CALL, max_size=2),
        "additional_kwargs": ANY,
        "id": ANY,
        "name": ANY,
    },
)


def made(kind, fields):
    """A message that holds whatever it is told to, as no check is asked."""
    message = kind("ok")
    message.__dict__.update(fields)
    return message


class Rogue(BaseChatModel):
    """Answers what its test says, whatever that is."""

    says: list = Field(default_factory=list)

    @property
    def _llm_type(self):
        return "rogue"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        message = made(AIMessage, self.says[0])
        generation = ChatGeneration.model_construct(
            message=message, text="ok", generation_info=None
        )
        return ChatResult.model_construct(generations=[generation], llm_output=None)

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for fields in self.says:
            yield ChatGenerationChunk.model_construct(
                message=made(AIMessageChunk, fields), text="ok", generation_info=None
            )


@pytest.fixture(scope="module")
def rogue():
    return Rogue()


@pytest.fixture(scope="module")
def routed(rogue):
    prices = {
        "input_cost_per_million_tokens": 1,
        "output_cost_per_million_tokens": 1,
    }
    return MixLLMChatModel(
        candidates=[CandidateModel(model=rogue, name="rogue", **prices)]
    )


WAYS = {
    "invoke": lambda model: model.invoke("hi"),
    "stream": lambda model: list(model.stream("hi")),
    "structured": lambda model: model.with_structured_output(
        {"title": "A", "type": "object", "properties": {}}, include_raw=True
    ).invoke("hi"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
@settings(FUZZ, max_examples=50)
@given(says=st.lists(FIELDS, min_size=1, max_size=3))
def test_nonsense_is_the_answer_or_the_candidates_error_and_leaves_no_load(
    rogue, routed, way, says
):
    rogue.says = says
    ask = WAYS[way]
    failed = None
    try:
        ask(routed)
    except Exception as error:  # noqa: BLE001 - of whatever kind
        failed = error
    assert routed.router.load_here() == {}
    prediction = routed.router.predict(["hi"])
    assert math.isfinite(prediction.cost[0, 0])
    if (
        failed is not None and way != "structured"
    ):  # then LangChain's own code cannot read it either
        with pytest.raises(type(failed)):
            ask(rogue)


@FUZZ
@given(fields=FIELDS, usage=USAGE)
def test_what_was_spent_is_read_of_any_message(fields, usage):
    for kind in (AIMessage, AIMessageChunk):
        message = made(kind, fields)
        for spent in (spent_on(usage, message), spent_on(usage, None, "said")):
            assert -1 <= spent.input_tokens <= 10**9
            assert 0 <= spent.output_tokens <= 10**9
            assert spent.cost is None or 0 < spent.cost <= 1e6
            assert spent.cache_write_tokens >= 0
        assert isinstance(said_in(message), str)
        total = with_usage(None, message)
        with_usage(total, message)
        with_usage({"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}, message)
        record = with_record(message, {"decision_id": "d"}).response_metadata
        assert record["mixllm"] == {"decision_id": "d"}


@FUZZ
@given(metadata=METADATA)
def test_any_metadata_is_cut_short_or_not(metadata):
    assert isinstance(is_cut_short(metadata), bool)


@pytest.mark.parametrize("generations", [[], [[]]])
def test_a_run_that_answers_nothing_is_heard(generations):
    watch = UsageWatch()
    result = LLMResult.model_construct(generations=generations)
    watch.on_llm_end(result, run_id=None)
    assert watch.message is None


@FUZZ
@given(raw=ANY | st.fixed_dictionaries({"usage": USAGE}) | USAGE, extra=ANY)
def test_usage_is_read_of_any_response_of_llama_index(raw, extra):
    response = ChatResponse(message=ChatMessage("ok"), raw=None)
    response.__dict__.update(raw=raw, additional_kwargs=extra)
    found = usage_of(response)
    # Three counts make what Anthropic read: told, from its cache, and into it.
    for count in (found.read, found.written, found.cache.read, found.cache.written):
        assert count is None or 0 <= count <= 3 * 10**9
    assert isinstance(found.is_cut_short, bool)


@pytest.mark.parametrize(
    ("said", "tokens", "cost"),
    [
        (0, 0, 0.0),
        (12, 12, 12.0),
        (2.0, 2, 2.0),
        (True, None, None),
        (-1, None, None),
        ("12", None, None),
        (None, None, None),
        (float("nan"), None, None),
        (float("inf"), None, None),
        (10**400, None, None),
        (10**9, 10**9, None),
        (10**9 + 1, None, None),
    ],
)
def test_a_count_or_cost_is_believed_within_reason(said, tokens, cost):
    assert told_tokens(said) == tokens
    assert told_cost(said) == cost


WORDS = st.sampled_from(
    [
        *("", "9" * 5_000, "1e999", "-1", "nan", "Infinity", "1h1m1s1ms", "1" * 9_000),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-23:59", "\ud800", "\0"),
        *("Fri, 31 Dec 9999 23:59:59 -2359", "Thu, 01 Jan 0000 00:00:00", ", , ,"),
        *("Mon, 99 Foo 99999999999999 99:99:99 +9999", "٣", "² s", "1h" * 10_000),
        *("Thu, 01 Jan 1970 00:00:00 +999999999999", "9" * 100_000 + "h", None, 5),
        *([], {}, b"5", float("nan"), 10**400, True, "google.rpc.RetryInfo"),
    ]
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("retry-after", "Retry-After", "retry-after-ms", "date"),
            *("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        ]
    ),
    WORDS,
)
DETAIL = WORDS | st.fixed_dictionaries({"@type": WORDS, "retryDelay": WORDS})


class FailedError(Exception):
    """An error that carries whatever its test says."""


@FUZZ
@given(
    carried=st.fixed_dictionaries(
        {},
        optional={
            "headers": HEADERS | WORDS,
            "details": DETAIL
            | st.lists(DETAIL)
            | st.fixed_dictionaries(
                {"error": WORDS | st.fixed_dictionaries({"details": st.lists(DETAIL)})}
            ),
            "response": WORDS
            | st.fixed_dictionaries(
                {
                    "ResponseMetadata": WORDS
                    | st.dictionaries(WORDS.filter(bool).map(ascii), HEADERS)
                }
            ),
            "status_code": WORDS | st.sampled_from([400, 429, 500]),
            "code": WORDS,
            "type": WORDS,
            "body": WORDS | st.fixed_dictionaries({"error": WORDS}),
        },
    )
)
def test_any_error_can_be_read(carried):
    error = FailedError("it failed")
    error.__dict__.update(carried)
    seconds = retry_after_seconds(error)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)
    for judged in (
        errors.is_callers_mistake(error),
        errors.is_unable(error),
        errors.is_context_overflow(error),
        errors.is_rate_limit(error),
        errors.is_lasting(error),
    ):
        assert isinstance(judged, bool)
    error_facts.words_of(error)
    assert error_facts.status_of(error) in (None, 400, 429, 500)


@FUZZ
@given(asked=WORDS | st.integers(), answered=WORDS | st.integers())
def test_the_usage_on_an_error_is_two_counts_or_nothing(asked, answered):
    error = FailedError("too long")
    error.completion = FailedError()
    error.completion.usage = FailedError()
    error.completion.usage.prompt_tokens = asked
    error.completion.usage.completion_tokens = answered
    found = error_facts.usage_of_error(error)
    assert found is None or all(0 <= count <= 10**9 for count in found)


def test_headers_of_the_standard_library_are_read():
    error = FailedError()
    error.headers = Message()
    error.headers["Retry-After"] = "3"
    assert retry_after_seconds(error) == 3.0


PIECES = (
    *("<think>", "</think>", "[", "{", '"tag"', ":", '"', ",", "'", "tags", "1", "\n"),
    *("- ", "* ", "é", "\ud800", "\0", "}", "]", " ", "number", "null", "(", ")", "#"),
    *("\u2028", "İ", "ﬃ", "1e999", "-", "9" * 4_400, ":(", "tag='", "[[],"),
)


@FUZZ
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=30), count=st.integers(1, 4))
def test_any_answer_about_tags_gives_tags_or_nothing(pieces, count):
    answer = "".join(pieces)
    rows = [read_tags(answer), *read_numbered(answer, count)]
    assert len(rows) == count + 1
    for row in rows:
        assert row is None or (len(row) <= 32 and all(map(normalise_tag, row)))


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_ten_megabytes_of_an_answer_about_tags_are_bounded(piece, within):
    answer = piece * (10_000_000 // len(piece))
    with within(100):
        read_tags(answer)
        read_numbered(answer, 3)
        normalise_tag(answer)


@pytest.mark.parametrize(
    "row", ["5", "null", '"abc"', "[1]", "[[]]", "{}", "[" * 100_000, "x", b"\xff"]
)
def test_a_forged_row_of_the_cache_of_tags_is_a_state_format_error(tmp_path, row):
    with TagCache(tmp_path, scope=("m",)) as cache:
        cache.put({"text": ("law",)})
        cache._database.execute("UPDATE tags SET tags = ?", [row])
        with pytest.raises(StateFormatError, match="delete it"):
            cache.get(["text"])


def test_a_text_never_becomes_a_part_of_a_statement(tmp_path):
    texts = ["'); DROP TABLE tags; --", '"', "\0", "\ud800", "?" * 2_000]
    with TagCache(tmp_path, scope=("'); DROP TABLE tags; --",)) as cache:
        cache.put({text: (text,) for text in texts[:4]})
        assert cache.get(texts) == {text: (text,) for text in texts[:4]}
        rows = cache._database.execute("SELECT tags FROM tags").fetchall()
    assert {json.loads(tags)[0] for (tags,) in rows} == set(texts[:4])
