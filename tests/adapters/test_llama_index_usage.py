"""Tokens are read where each provider's LLM tells them."""

from types import SimpleNamespace as Raw

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    TextBlock,
    ToolCallBlock,
)

from mixllm_integrations import Router
from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.llama_index.reading import says_something
from mixllm_integrations.llama_index.usage import Usage, answer_tokens, usage_of
from mixllm_integrations.serving import NO_CACHE, CacheUse
from mixllm_integrations.testing import ScriptedLLM

TOLD = {
    "openai": Raw(
        usage=Raw(
            prompt_tokens=10,
            completion_tokens=3,
            prompt_tokens_details=Raw(cached_tokens=4),
        )
    ),
    "responses": Raw(
        usage=Raw(
            input_tokens=10,
            output_tokens=3,
            input_tokens_details=Raw(cached_tokens=4),
        )
    ),
    "anthropic": {
        "usage": Raw(
            input_tokens=5,
            output_tokens=3,
            cache_read_input_tokens=4,
            cache_creation_input_tokens=1,
        )
    },
    "google": {
        "usage_metadata": {
            "prompt_token_count": 10,
            "candidates_token_count": 3,
            "cached_content_token_count": 4,
        }
    },
    "ollama": {"prompt_eval_count": 10, "eval_count": 3},
}
WROTE = {"anthropic": CacheUse(4, 1), "ollama": NO_CACHE}


def chat(raw=None, beside=None, message=None, **kwargs):
    message = message or ChatMessage(role="assistant", content="four")
    return ChatResponse(
        message=message, raw=raw, additional_kwargs=beside or {}, **kwargs
    )


@pytest.mark.parametrize("provider", TOLD)
def test_tokens_and_cache_of_each_provider(provider):
    expected = Usage(10, 3, WROTE.get(provider, CacheUse(4)))
    assert usage_of(chat(TOLD[provider])) == expected
    assert usage_of(CompletionResponse(text="four", raw=TOLD[provider])) == expected


def test_the_last_event_of_a_stream_of_responses_holds_the_whole_one():
    told = TOLD["responses"].usage
    ended = Raw(response=Raw(usage=told, incomplete_details=None))
    assert usage_of(chat(ended)) == Usage(10, 3, CacheUse(4))
    assert usage_of(chat(Raw(type="x"), {"usage": told})) == Usage(10, 3, CacheUse(4))
    short = Raw(response=Raw(incomplete_details={"reason": "max_output_tokens"}))
    assert usage_of(chat(short)).is_cut_short


def test_counts_beside_the_answer_do_where_the_raw_one_says_nothing():
    beside = {"prompt_tokens": 10, "completion_tokens": 3}
    assert usage_of(chat(Raw(usage=None), beside)) == Usage(10, 3)


def test_counts_on_a_chunks_message_do_as_anthropics():
    told = {"usage": {"input_tokens": 10, "output_tokens": 3}, "stop_reason": None}
    message = ChatMessage("x", additional_kwargs=told)
    assert usage_of(chat({"type": "x"}, message=message)) == Usage(10, 3)


@pytest.mark.parametrize("count", [0, -1, None, True, "10", float("nan")])
def test_what_is_no_count_of_tokens_read_says_nothing(count):
    raw = {"usage": {"prompt_tokens": count, "completion_tokens": 0}}
    assert usage_of(chat(raw)) == Usage()


def test_an_empty_answer_to_a_prompt_that_was_read_took_no_tokens():
    raw = {"usage": {"prompt_tokens": 10, "completion_tokens": 0}}
    assert usage_of(chat(raw)) == Usage(10, 0)


@pytest.mark.parametrize(
    "raw",
    [
        Raw(choices=[Raw(finish_reason="length")]),
        {"choices": [{"finish_reason": "length"}]},
        {"stop_reason": "max_tokens"},
        {"delta": Raw(stop_reason="max_tokens")},
        {"done_reason": "length"},
        {"incomplete_details": {"reason": "max_output_tokens"}},
    ],
)
def test_an_answer_at_its_limit_is_cut_short(raw):
    assert usage_of(chat(raw)).is_cut_short


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "text",
        Raw(choices=[]),
        Raw(choices=[Raw(finish_reason="stop")]),
        {"stop_reason": "end_turn"},
    ],
)
def test_another_answer_is_not(raw):
    assert not usage_of(chat(raw)).is_cut_short


def test_what_chunks_tell_in_parts_is_put_together():
    told = Usage(read=10).then(Usage(written=2)).then(Usage(written=3))
    assert told.then(Usage(cache=CacheUse(4))).then(Usage(is_cut_short=True)) == Usage(
        10, 3, CacheUse(4), is_cut_short=True
    )


def test_an_answer_is_estimated_with_its_tool_calls():
    call = ToolCallBlock(tool_name="add", tool_kwargs={"a": 1, "b": 2})
    blocks = [TextBlock(text="let me add"), call]
    both = chat(message=ChatMessage(role="assistant", blocks=blocks))
    alone = chat(message=ChatMessage(role="assistant", blocks=blocks[:1]))
    assert answer_tokens(both) > answer_tokens(alone) > 0
    assert answer_tokens(None) == 0


class TestSaysSomething:
    @pytest.mark.parametrize(
        "item",
        [
            chat(message=ChatMessage(role="assistant", content=""), delta=""),
            chat(message=ChatMessage(role="assistant", blocks=[])),
            CompletionResponse(text="", delta=""),
        ],
    )
    def test_a_chunk_that_only_opens_a_stream_does_not(self, item):
        assert not says_something(item)

    @pytest.mark.parametrize(
        "item",
        [
            chat(delta="f"),
            CompletionResponse(text="f", delta="f"),
            object(),
            chat(
                message=ChatMessage(
                    role="assistant", blocks=[ToolCallBlock(tool_name="add")]
                )
            ),
        ],
    )
    def test_what_is_a_part_of_the_answer_does(self, item):
        assert says_something(item)

    @pytest.mark.parametrize("mode", ["stream_chat", "stream_complete"])
    def test_one_that_fails_before_it_is_taken_over_from(self, mode):
        class Opening(ScriptedLLM):
            def _chunks(self, answer, error, messages):
                empty = ChatMessage(role="assistant", content="")
                yield ChatResponse(message=empty, delta="")
                raise ConnectionError

        def entry(name, kind, quality):
            return CandidateLLM(
                llm=kind(model=name, answers=["it is four"]),
                input_cost_per_million_tokens=1.0,
                output_cost_per_million_tokens=1.0,
                prior_quality=quality,
            )

        llm = MixLLM(
            [entry("opens", Opening, 0.9), entry("answers", ScriptedLLM, 0.1)],
            willingness_to_pay=1.0,
        )
        given = "x" if "complete" in mode else [ChatMessage("x")]
        chunks = list(getattr(llm, mode)(given))
        assert [chunk.delta for chunk in chunks] == ["it ", "is ", "four"]
        (attempt,) = chunks[-1].additional_kwargs["mixllm"]["attempts"]
        assert attempt["candidate"] == "opens"


def test_an_answer_cut_short_is_told_to_the_router():
    class Short(ScriptedLLM):
        def _raw(self):
            return {"raw": {"stop_reason": "max_tokens"}}

    entry = CandidateLLM(
        llm=Short(model="short"),
        input_cost_per_million_tokens=1.0,
        output_cost_per_million_tokens=1.0,
    )
    router = Router([entry.candidate], implicit_signals=["truncated"])
    llm = MixLLM([entry], router=router)
    assert not llm.record_signal(llm.complete("x"), "truncated")
