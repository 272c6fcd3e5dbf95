"""Classes of real providers as candidates, over a transport without a network."""

import json

import httpx
import pytest

from mixllm_integrations.langchain import MixLLMChatModel

openai = pytest.importorskip("langchain_openai")
anthropic = pytest.importorskip("langchain_anthropic")
BadRequestError = pytest.importorskip("openai").BadRequestError

KEY = "sk-this-must-never-be-seen"


def completion(said):
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 0,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": said},
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }


def streamed(said):
    usage = completion(said)["usage"]
    start = {"id": "c1", "object": "chat.completion.chunk", "created": 0}
    chunks = [
        {
            **start,
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": end}],
        }
        for word, end in [("Hello", None), (" you", None), ("", "stop")]
    ]
    chunks.append(
        {**start, "model": "gpt-4o-mini-2024-07-18", "choices": [], "usage": usage}
    )
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"])


@pytest.fixture
def gpt():
    """Make a ChatOpenAI whose server answers with given statuses, then 200."""

    def make(model, *statuses):
        left, seen = list(statuses), []

        def serve(request):
            body = json.loads(request.content)
            seen.append(body)
            if left:
                error = {"error": {"message": "no", "type": "x", "code": None}}
                return httpx.Response(left.pop(0), json=error)
            if body.get("stream"):
                head = {"content-type": "text/event-stream"}
                return httpx.Response(200, text=streamed(model), headers=head)
            return httpx.Response(200, json=completion(f"From {model}"))

        client = httpx.Client(transport=httpx.MockTransport(serve))
        chat = openai.ChatOpenAI(
            model=model,
            api_key=KEY,
            http_client=client,
            max_retries=0,
            stream_usage=True,
        )
        return chat, seen

    return make


def test_real_classes_are_named_priced_and_set_up():
    models = [
        openai.ChatOpenAI(model="gpt-4o-mini", api_key=KEY),
        anthropic.ChatAnthropic(model="claude-haiku-4-5", api_key=KEY),
    ]
    routed = MixLLMChatModel(candidates=models, max_tokens=5, stop=["X"])
    names = [candidate.name for candidate in routed.router.candidates]
    assert names == ["gpt-4o-mini", "claude-haiku-4-5"]
    assert all(c.tools for c in routed.router.candidates)
    claude = routed.seat("claude-haiku-4-5").model
    assert (claude.max_tokens, claude.stop_sequences) == (5, ["X"])
    gpt = routed.seat("gpt-4o-mini").model
    assert (gpt.max_tokens, gpt.stop) == (5, ["X"])
    assert routed.profile["tool_calling"] is True
    assert KEY not in repr(routed)


def test_a_real_class_answers_with_its_own_metadata_and_the_record(gpt):
    chat, seen = gpt("gpt-4o-mini")
    answer = MixLLMChatModel(candidates=[chat], temperature=0.25).invoke("hello")
    assert answer.content == "From gpt-4o-mini"
    assert answer.response_metadata["model_name"] == "gpt-4o-mini-2024-07-18"
    # 10 tokens at 0.15 USD per million and 2 at 0.60.
    record = answer.response_metadata["mixllm"]
    assert record["cost"] == pytest.approx(10 * 0.15e-6 + 2 * 0.60e-6)
    assert seen[0]["temperature"] == 0.25


def test_a_real_stream_sums_up_with_usage_and_record(gpt):
    chat, _ = gpt("gpt-4o-mini")
    whole = None
    for chunk in MixLLMChatModel(candidates=[chat]).stream("hello"):
        whole = chunk if whole is None else whole + chunk
    assert whole.content == "Hello you"
    assert whole.usage_metadata["total_tokens"] == 12
    record = whole.response_metadata["mixllm"]
    assert record["cost"] == pytest.approx(2.7e-6)
    assert whole.response_metadata["model_name"] == "gpt-4o-mini-2024-07-18"


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_a_real_outage_is_taken_over(gpt, status):
    small, _ = gpt("gpt-4o-mini", status)
    large, _ = gpt("gpt-4o", status)
    answer = MixLLMChatModel(candidates=[small, large, gpt("gpt-4.1")[0]]).invoke("q")
    record = answer.response_metadata["mixllm"]
    assert answer.content == f"From {record['candidate']}"
    failed = {attempt["candidate"] for attempt in record["attempts"]}
    assert failed <= {"gpt-4o-mini", "gpt-4o"}
    assert len(failed) == len(record["attempts"])


def test_a_real_bad_request_is_raised_as_it_is(gpt):
    first, seen = gpt("gpt-4o-mini", 400)
    model = MixLLMChatModel(candidates=[first])
    with pytest.raises(BadRequestError, match="400"):
        model.invoke("q")
    assert len(seen) == 1
