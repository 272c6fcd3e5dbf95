"""Arguments, images and histories of a routed model as they go over the wire."""

import base64

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.langchain.history import adapting
from mixllm_integrations.testing.wire import Reply, ToolCall

pytestmark = pytest.mark.network

PIXEL = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1s"
        "AAAAASUVORK5CYII="
    )
).decode()


def sent_by(server, model):
    return server.requests_to(model)[-1].body


def test_arguments_of_a_call_reach_openai(server, gpt, ranked):
    ranked(gpt()).invoke(
        "hello there", stop=["you"], temperature=0.5, max_tokens=7, top_p=0.25
    )
    body = sent_by(server, "gpt-4o-mini")
    assert (body["stop"], body["temperature"]) == (["you"], 0.5)
    assert (body["max_completion_tokens"], body["top_p"]) == (7, 0.25)


def test_arguments_of_a_call_reach_anthropic(server, claude, ranked):
    answer = ranked(claude()).invoke(
        "hello there", stop=["there"], temperature=0.5, max_tokens=7, top_k=3
    )
    body = sent_by(server, "claude-haiku-4-5")
    assert (body["stop_sequences"], body["temperature"]) == (["there"], 0.5)
    assert (body["max_tokens"], body["top_k"]) == (7, 3)
    assert answer.text == "You said: hello "


def test_settings_of_the_routed_model_reach_whoever_answers(
    server, gpt, claude, ranked
):
    model = ranked(gpt(), claude(), temperature=0.5, max_tokens=7, stop=["X"])
    server.model("gpt-4o-mini").fail_with(500)
    model.invoke("hello")
    openai, anthropic = (request.body for request in server.requests)
    assert (openai["temperature"], anthropic["temperature"]) == (0.5, 0.5)
    assert (openai["max_completion_tokens"], anthropic["max_tokens"]) == (7, 7)
    assert (openai["stop"], anthropic["stop_sequences"]) == (["X"], ["X"])


@pytest.mark.parametrize("name", ["gpt-4o-mini", "claude-haiku-4-5"])
async def test_a_candidate_named_by_a_call_answers_it(
    name, server, gpt, claude, ranked
):
    model = ranked(gpt(), claude())
    assert model.invoke("hello", model=name).response_metadata["model_name"] == name
    answer = await model.ainvoke("hello", model=name)
    assert answer.response_metadata["model_name"] == name
    assert [request.model for request in server.requests] == [name, name]


def test_a_model_that_is_no_candidate_is_asked_of_whoever_answers(server, gpt, ranked):
    ranked(gpt()).invoke("hello", model="gpt-4o-mini-2024-07-18")
    assert server.requests[0].model == "gpt-4o-mini-2024-07-18"


def test_the_name_that_the_provider_tells_stays_on_the_answer(server, gpt, ranked):
    server.model("gpt-4o-mini", reported_as="gpt-4o-mini-2024-07-18")
    metadata = ranked(gpt()).invoke("hello").response_metadata
    assert metadata["model_name"] == "gpt-4o-mini-2024-07-18"
    assert metadata["mixllm"]["candidate"] == "gpt-4o-mini"


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image", "base64": PIXEL, "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ],
    ids=["standard", "openai"],
)
def test_an_image_goes_to_a_candidate_that_sees(image, server, gpt, claude):
    blind = CandidateModel(model=gpt(), vision=False, prior_quality=0.9)
    model = MixLLMChatModel(candidates=[blind, claude()])
    question = HumanMessage([{"type": "text", "text": "What is this?"}, image])
    answer = model.invoke([question])
    assert answer.response_metadata["mixllm"]["candidate"] == "claude-haiku-4-5"
    source = sent_by(server, "claude-haiku-4-5")["messages"][0]["content"][1]["source"]
    assert source == {"type": "base64", "media_type": "image/png", "data": PIXEL}


def test_an_image_reaches_openai_in_its_own_form(server, gpt, ranked):
    image = {"type": "image", "base64": PIXEL, "mime_type": "image/png"}
    ranked(gpt()).invoke([HumanMessage([{"type": "text", "text": "What?"}, image])])
    sent = sent_by(server, "gpt-4o-mini")["messages"][0]["content"][1]
    assert sent["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"


@pytest.fixture
def own_servers(monkeypatch):
    """Let the server of a test pass for the providers' own."""
    monkeypatch.setattr(adapting, "_ADDRESSES", {})


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def conversation(answer):
    """A tool's result, the answer before it, and what else was said."""
    results = [ToolMessage("7", tool_call_id=call["id"]) for call in answer.tool_calls]
    return [
        SystemMessage("Be brief."),
        HumanMessage(
            [
                {
                    "type": "text",
                    "text": "What is 3 and 4?",
                    "cache_control": {"type": "ephemeral"},
                }
            ]
        ),
        answer,
        *results,
    ]


@pytest.fixture
def loop(server, gpt, claude, ranked):
    """Begin a loop of tool calls at one client, and go on at another one."""
    thinks = {"type": "enabled", "budget_tokens": 1024}
    reasons = {"effort": "low", "summary": "auto"}
    make = {
        "chat": lambda number: gpt(("gpt-5", "gpt-5-mini")[number]),
        "responses": lambda number: gpt(
            ("gpt-5", "gpt-5-mini")[number], reasoning=reasons
        ),
        "claude": lambda number: claude(CLAUDES[number]),
        "thinking claude": lambda number: claude(
            CLAUDES[number], thinking=thinks, max_tokens=2000
        ),
    }

    def run(begins, goes_on, ask):
        first, second = make[begins](0), make[goes_on](1)
        call = ToolCall("add", {"a": 3, "b": 4})
        thought = Reply("Let me see.", tool_calls=[call], reasoning="Two numbers.")
        server.model(first.model, answers=[thought])
        model = ranked(first, second).bind_tools([add])
        answer = ask(model, [HumanMessage("What is 3 and 4?")])
        assert answer.response_metadata["mixllm"]["candidate"] == first.model
        server.model(first.model).fail_with(503)
        server.model(second.model, answers=["Seven."])
        last = ask(model, conversation(answer))
        assert last.text == "Seven."
        assert last.response_metadata["mixllm"]["candidate"] == second.model

    return run


CLAUDES = ("claude-opus-4-5", "claude-haiku-4-5")


def invoked(model, messages):
    return model.invoke(messages)


def streamed(model, messages):
    answer = None
    for chunk in model.stream(messages):
        answer = chunk if answer is None else answer + chunk
    return answer


@pytest.mark.usefixtures("own_servers")
@pytest.mark.parametrize("ask", [invoked, streamed])
@pytest.mark.parametrize("goes_on", ["chat", "responses", "claude"])
@pytest.mark.parametrize("begins", ["chat", "responses", "claude", "thinking claude"])
def test_a_tool_loop_goes_on_at_another_candidate(begins, goes_on, ask, loop):
    """Whoever began fails in mid-loop; the server takes what the next one sends."""
    loop(begins, goes_on, ask)


@pytest.mark.usefixtures("own_servers")
def test_a_claude_that_thinks_passes_on_a_loop_that_began_without(
    server, gpt, claude, ranked
):
    """Anthropic refuses it, and `ChatAnthropic` cannot stop thinking for one call."""
    first, last = gpt("gpt-5"), claude("claude-opus-4-5")
    thinks = {"type": "enabled", "budget_tokens": 1024}
    thinker = claude("claude-haiku-4-5", thinking=thinks, max_tokens=2000)
    call = Reply("Let me see.", tool_calls=[ToolCall("add", {"a": 3, "b": 4})])
    server.model(first.model, answers=[call])
    model = ranked(first, thinker, last)
    answer = model.bind_tools([add]).invoke([HumanMessage("What is 3 and 4?")])
    server.model(first.model).fail_with(503)
    server.model(last.model, answers=["Seven."])
    end = model.bind_tools([add]).invoke(conversation(answer))
    assert end.response_metadata["mixllm"]["candidate"] == last.model
    assert thinker.model not in model.dispatcher.cooldown.due()


@pytest.mark.usefixtures("own_servers")
@pytest.mark.parametrize("provider", ["gpt", "claude"])
def test_ids_of_any_provider_are_taken(provider, request, server, ranked):
    client = request.getfixturevalue(provider)()
    for call_id in ("functions.add:0", "x" * 64, "call/with+signs="):
        call = {"name": "add", "args": {"a": 3, "b": 4}, "id": call_id}
        answer = AIMessage("", tool_calls=[call])
        server.model(client.model, answers=["Seven."])
        routed = ranked(client).bind_tools([add])
        assert routed.invoke(conversation(answer)).text == "Seven."
