"""A conversation is made readable for whoever answers next, and stays what it is."""

import json
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from mixllm_integrations.langchain.history import adapted, provider_of
from mixllm_integrations.testing import ScriptedChatModel

# What only its provider can read, as it stands in the shapes below.
BOUND = (
    "THOUGHT",
    "SIGNED",
    "SEALED",
    "SERVED",
    "rs_1",
    "msg_1",
    "msg_2",
    "resp_1",
    "ws_1",
    "fc_1",
    "srvtoolu_1",
    "container_1",
    "commentary",
)
CALL = {"name": "look", "args": {"q": "x"}, "id": "call_1", "type": "tool_call"}
SAID = "Let me see.\n\nFound it."
EPHEMERAL = {"type": "ephemeral"}


def answer(content, *, provider, beside=None, calls=True, **kwargs):
    metadata = {"model_provider": provider, **kwargs.pop("metadata", {})}
    return AIMessage(
        content,
        additional_kwargs=beside or {},
        response_metadata=metadata,
        tool_calls=[CALL] if calls else [],
        **kwargs,
    )


def responses(version):
    """Return what ChatOpenAI makes of one answer of the Responses API."""
    cited = {"type": "url_citation", "url": "https://e.org", "title": "SERVED"}
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    thought = [{"type": "summary_text", "text": "THOUGHT"}]
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": thought}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look"}
    texts = [
        {"type": "text", "text": "Let me see.", "id": "msg_1", "phase": "commentary"},
        {"type": "text", "text": "Found it.", "id": "msg_2", "annotations": [cited]},
    ]
    if version == "v0":
        return answer(
            [{k: v for k, v in text.items() if k != "id"} for text in texts],
            provider="openai",
            beside={
                "reasoning": reasoning,
                "tool_outputs": [search],
                "__openai_function_call_ids__": {"call_1": "fc_1"},
            },
            id="msg_1",
            metadata={"id": "resp_1"},
        )
    metadata = {"id": "resp_1"}
    middle = [search]
    last = call
    if version == "v1":
        metadata["output_version"] = "v1"
        reasoning = {"type": "reasoning", "id": "rs_1", "reasoning": "THOUGHT"}
        middle = [
            {"type": "server_tool_call", "name": "web_search", "id": "ws_1"},
            {"type": "server_tool_result", "tool_call_id": "ws_1"},
        ]
        last = {**CALL, "extras": {"item_id": "fc_1"}}
    return answer(
        [reasoning, texts[0], *middle, texts[1], last],
        provider="openai",
        id="resp_1",
        metadata=metadata,
    )


def claude(version):
    """Return what ChatAnthropic makes of one answer."""
    result = {"type": "web_search_result", "encrypted_content": "SEALED"}
    metadata = {"id": "msg_01", "container": {"id": "container_1"}}
    if version == "v1":
        metadata["output_version"] = "v1"
        cited = {"type": "citation", "url": "https://e.org", "title": "SERVED"}
        signed = {"signature": "SIGNED"}
        hidden = {"type": "redacted_thinking", "data": "SEALED"}
        content = [
            {"type": "reasoning", "reasoning": "THOUGHT", "extras": signed},
            {"type": "non_standard", "value": hidden},
            {"type": "text", "text": "Let me see."},
            {"type": "server_tool_call", "name": "web_search", "id": "srvtoolu_1"},
            {
                "type": "server_tool_result",
                "tool_call_id": "srvtoolu_1",
                "output": [result],
            },
            {"type": "text", "text": "Found it.", "annotations": [cited]},
            CALL,
        ]
    else:
        content = [
            {"type": "thinking", "thinking": "THOUGHT", "signature": "SIGNED"},
            {"type": "redacted_thinking", "data": "SEALED"},
            {"type": "text", "text": "Let me see."},
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search"},
            {
                "type": "web_search_tool_result",
                "tool_use_id": "srvtoolu_1",
                "content": [result],
            },
            {"type": "text", "text": "Found it.", "citations": [{"title": "SERVED"}]},
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {"q": "x"}},
        ]
    return answer(content, provider="anthropic", id="lc_run--1", metadata=metadata)


def gemini():
    signatures = {"call_1": "SIGNED"}
    return answer(
        [
            {"type": "thinking", "thinking": "THOUGHT", "signature": "SIGNED"},
            {"type": "text", "text": "Let me see.", "extras": {"signature": "SIGNED"}},
            {"type": "executable_code", "executable_code": "SERVED"},
            {"type": "code_execution_result", "code_execution_result": "SERVED"},
            "Found it.",
        ],
        provider="google_genai",
        beside={
            "function_call": {"name": "look", "arguments": '{"q": "x"}'},
            "__gemini_function_call_thought_signatures__": signatures,
        },
    )


def bedrock():
    reasoning = {"text": "THOUGHT", "signature": "SIGNED"}
    return answer(
        [
            {"type": "reasoning_content", "reasoning_content": reasoning},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {"q": "x"}},
            {"type": "text", "text": "Found it."},
        ],
        provider="bedrock_converse",
    )


def mistral():
    thought = [{"type": "text", "text": "THOUGHT"}]
    return answer(
        [
            {"type": "text", "text": "Let me see."},
            {"type": "thinking", "thinking": thought},
            {"type": "text", "text": "Found it."},
        ],
        provider="mistralai",
    )


def in_kwargs(provider):
    def make():
        return answer(SAID, provider=provider, beside={"reasoning_content": "THOUGHT"})

    return make


SHAPES = {
    "openai chat": lambda: answer(SAID, provider="openai", beside={"refusal": None}),
    "openai responses v0": lambda: responses("v0"),
    "openai responses/v1": lambda: responses("responses/v1"),
    "openai responses v1": lambda: responses("v1"),
    "anthropic v0": lambda: claude("v0"),
    "anthropic v1": lambda: claude("v1"),
    "google_genai": gemini,
    "bedrock": bedrock,
    "mistralai": mistral,
    "ollama": in_kwargs("ollama"),
    "deepseek": in_kwargs("deepseek"),
    "groq": in_kwargs("groq"),
}
TARGETS = [
    "anthropic",
    "azure",
    "bedrock",
    "google_genai",
    "mistralai",
    "ollama",
    "openai",
    "somebody",
]
PAIRS = [
    (shape, target)
    for shape in SHAPES
    for target in TARGETS
    if not shape.startswith(target)
]


def thread(said, *, marked=False):
    """Return a conversation around an answer that called a tool."""
    mark = {"cache_control": EPHEMERAL} if marked else {}
    return [
        SystemMessage([{"type": "text", "text": "Be brief.", **mark}]),
        HumanMessage([{"type": "text", "text": "What is it?", **mark}]),
        said,
        ToolMessage(
            [{"type": "text", "text": "It is x.", **mark}], tool_call_id="call_1"
        ),
        HumanMessage("And now?"),
    ]


def asked(messages, provider, **kwargs):
    kwargs.setdefault("providers", {})
    return adapted(messages, provider=provider, **kwargs)


def dumped(messages):
    return json.dumps([message.model_dump() for message in messages], default=str)


# Answers of other providers


@pytest.mark.parametrize(("shape", "target"), PAIRS)
def test_an_answer_of_another_provider_keeps_what_was_said_and_called(shape, target):
    messages = thread(SHAPES[shape]())
    before = deepcopy(messages)
    read = asked(messages, target)
    said, result = read[2:4]
    assert said.content == SAID
    assert [(c["name"], c["args"]) for c in said.tool_calls] == [("look", {"q": "x"})]
    assert result.tool_call_id == said.tool_calls[0]["id"]
    assert said.usage_metadata == messages[2].usage_metadata
    left = dumped([said])
    assert not [bound for bound in BOUND if bound in left]
    assert "output_version" not in said.response_metadata
    assert said.response_metadata["model_provider"]
    # All else is untouched, and the conversation as it was given anyway.
    assert read[0] is messages[0]
    assert read[4] is messages[4]
    assert messages == before


@pytest.mark.parametrize("shape", SHAPES)
def test_a_provider_reads_its_own_answers_as_they_are(shape):
    messages = thread(SHAPES[shape]())
    signed = messages[2].response_metadata["model_provider"]
    traced = {"bedrock_converse": "amazon_bedrock", "mistralai": "mistral"}
    read = asked(messages, traced.get(signed, signed))
    if shape == "mistralai":  # such an id is not of its own making
        assert read[2].content == messages[2].content
    else:
        assert read is messages


@pytest.mark.parametrize("target", [*TARGETS, None])
def test_a_plain_conversation_is_returned_itself(target):
    messages = [
        SystemMessage("Be brief."),
        HumanMessage([{"type": "text", "text": "Hello"}]),
        AIMessage(
            "Hi.",
            id="lc_run--1",
            additional_kwargs={"refusal": None},
            response_metadata={
                "id": "chatcmpl-1",
                "container": None,
                "model_provider": "openai",
                "mixllm": {"candidate": "gpt"},
            },
        ),
        HumanMessage("Bye"),
    ]
    assert asked(messages, target) is messages
    known = {"providers": {"gpt": "openai"}, "candidate": "other"}
    assert asked(messages, target, **known) is messages


def test_the_record_tells_who_wrote_better_than_the_name_of_the_api():
    # A shim speaks Anthropic's protocol, so its class signs with that name.
    said = claude("v0")
    said.response_metadata["mixllm"] = {"candidate": "shim"}
    messages = thread(said)
    assert asked(messages, "anthropic") is messages
    read = asked(messages, "anthropic", providers={"shim": "deepseek"})
    assert read[2].content == SAID


def test_a_record_of_a_candidate_that_left_says_nothing():
    said = claude("v0")
    said.response_metadata["mixllm"] = {"candidate": "gone"}
    messages = thread(said)
    assert asked(messages, "anthropic", providers={"here": "openai"}) is messages
    assert asked(messages, "openai", providers={"here": "openai"}) is not messages


def test_texts_in_one_piece_stay_in_one_and_others_are_set_apart():
    pieces = [
        {"type": "text", "text": "It is "},
        {"type": "text", "text": "sunny", "citations": [{"title": "a"}]},
        {"type": "text", "text": "."},
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "text", "text": ""},
        {"type": "text", "text": "Bye."},
    ]
    messages = [HumanMessage("q"), answer(pieces, provider="anthropic")]
    assert asked(messages, "openai")[1].content == "It is sunny.\n\nBye."


@pytest.mark.parametrize(
    ("content", "beside"),
    [
        ([{"type": "thinking", "thinking": "Hm.", "signature": "s"}], {}),
        ([{"type": "image", "base64": "aaaa", "mime_type": "image/png"}], {}),
        ([{"type": "text", "text": " \n"}], {}),
        ("", {"reasoning_content": "Hm."}),
    ],
)
def test_an_answer_of_which_nothing_is_left_is_left_out(content, beside):
    said = answer(content, provider="anthropic", beside=beside, calls=False)
    messages = [HumanMessage("a"), said, HumanMessage("b")]
    assert asked(messages, "openai") == [messages[0], messages[2]]


def test_calls_alone_are_an_answer():
    content = [{"type": "thinking", "thinking": "Hm.", "signature": "s"}]
    messages = thread(answer(content, provider="anthropic"))
    read = asked(messages, "openai")
    assert read[2].content == ""
    assert read[2].tool_calls == [CALL]


def test_an_answer_that_was_empty_from_the_start_is_left_alone():
    messages = [HumanMessage("a"), answer("", provider="anthropic", calls=False)]
    assert asked(messages, "openai") is messages


@pytest.mark.parametrize(
    ("content", "beside"),
    [
        ([{"type": "refusal", "refusal": "I cannot."}], {}),
        ("", {"refusal": "I cannot."}),
        ("", {"audio": {"id": "audio_1", "data": "aa", "transcript": "I cannot."}}),
        ([{"type": "non_standard", "value": {"text": "I cannot."}}], {}),
    ],
)
def test_what_was_said_elsewhere_becomes_the_text(content, beside):
    said = answer(content, provider="openai", beside=beside, calls=False)
    read = asked([HumanMessage("a"), said], "anthropic")
    assert read[1].content == "I cannot."
    assert not read[1].additional_kwargs


def test_a_streamed_answer_is_read_like_any_other():
    chunk = AIMessageChunk(
        claude("v0").content,
        tool_call_chunks=[
            {"name": "look", "args": '{"q": "x"}', "id": "call:1", "index": 0}
        ],
        response_metadata={"model_provider": "google_genai"},
        chunk_position="last",
    )
    read = asked([HumanMessage("q"), chunk], "anthropic")[1]
    assert isinstance(read, AIMessageChunk)
    assert read.content == SAID
    assert read.tool_call_chunks[0]["id"] == read.tool_calls[0]["id"] != "call:1"


# Another candidate of the same provider


def of_candidate(said, name="first"):
    said.response_metadata["mixllm"] = {"candidate": name}
    return thread(said)


def test_a_candidate_reads_its_own_answers_whoever_serves_it():
    for shape in ("openai responses v1", "anthropic v0", "google_genai"):
        messages = of_candidate(SHAPES[shape]())
        for provider in ("somebody", None):
            read = asked(messages, provider, providers={}, candidate="first")
            assert read is messages


@pytest.mark.parametrize("version", ["v0", "responses/v1", "v1"])
def test_what_openai_stored_for_one_candidate_is_not_looked_up_for_another(version):
    messages = of_candidate(responses(version))
    both = {"first": "openai", "second": "openai"}
    assert asked(messages, "openai", providers=both) is messages
    read = asked(messages, "openai", providers=both, candidate="second")
    assert read[2].content == SAID
    assert not [bound for bound in BOUND if bound in dumped([read[2]])]


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_what_one_model_signed_is_not_shown_to_another(version):
    messages = of_candidate(claude(version))
    both = {"first": "anthropic", "second": "anthropic"}
    read = asked(messages, "anthropic", providers=both, candidate="second")
    kinds = [block["type"] for block in read[2].content]
    assert not {"thinking", "redacted_thinking", "reasoning"} & set(kinds)
    # Its provider knows its own searches, so they can stay.
    assert "srvtoolu_1" in dumped([read[2]])


def test_signatures_of_gemini_stay_as_it_asks_for_them():
    messages = of_candidate(gemini())
    both = {"first": "google_genai", "second": "google_genai"}
    read = asked(messages, "google_genai", providers=both, candidate="second")
    assert read is messages


def test_candidates_of_unknown_providers_share_nothing():
    messages = of_candidate(responses("v1"))
    neither = {"first": None, "second": None}
    assert asked(messages, None, providers=neither) is messages
    read = asked(messages, None, providers=neither, candidate="second")
    assert read[2].content == SAID


# Nobody knows who wrote it


@pytest.mark.parametrize(
    ("block", "readers"),
    [
        ({"type": "thinking", "thinking": "a", "signature": "s"}, {"anthropic"}),
        ({"type": "redacted_thinking", "data": "a"}, {"anthropic", "bedrock"}),
        ({"type": "web_fetch_tool_result", "content": {}}, {"anthropic", "bedrock"}),
        ({"type": "reasoning", "summary": []}, {"openai", "azure"}),
        ({"type": "reasoning", "id": "rs_1"}, {"openai", "azure"}),
        ({"type": "web_search_call", "id": "ws_1"}, {"openai", "azure"}),
        ({"type": "reasoning_content", "reasoning_content": {}}, {"bedrock"}),
        ({"type": "executable_code", "executable_code": "a"}, {"google_genai"}),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_of_an_unknown_author_only_foreign_forms_go(block, readers, wrapped):
    if wrapped:
        block = {"type": "non_standard", "value": block}
    content = [block, {"type": "text", "text": "Hi.", "index": 0}, "there"]
    messages = [HumanMessage("q"), AIMessage(content, id="lc_run--1")]
    for target in readers - ({"anthropic"} if wrapped else set()):
        assert asked(messages, target) is messages
    assert asked(messages, "ollama")[1].content == content[1:]
    assert asked(messages, None) is messages


def test_a_thought_without_signature_is_not_of_anthropic():
    content = [{"type": "thinking", "thinking": "a"}, {"type": "text", "text": "b"}]
    messages = [AIMessage(content), HumanMessage("q")]
    assert asked(messages, "anthropic")[0].content == content[1:]
    assert asked(messages, "google_genai") is messages


def test_an_unknown_authors_standard_reasoning_is_not_certainly_foreign():
    content = [{"type": "reasoning", "reasoning": "a"}, {"type": "text", "text": "b"}]
    messages = [AIMessage(content)]
    for target in ("openai", "anthropic", "google_genai"):
        assert asked(messages, target) is messages


def test_an_unknown_authors_refusal_is_text_for_others():
    content = [{"type": "refusal", "refusal": "No."}]
    messages = [AIMessage(content)]
    assert asked(messages, "openai") is messages
    assert asked(messages, "anthropic")[0].content == [{"type": "text", "text": "No."}]


def test_of_an_unknown_author_an_answer_of_foreign_forms_alone_is_left_out():
    foreign = AIMessage([{"type": "redacted_thinking", "data": "a"}])
    messages = [HumanMessage("a"), foreign]
    assert asked(messages, "openai") == messages[:1]


def test_ids_of_anthropic_are_not_looked_up_at_openai():
    foreign = "msg_01XFDUDYJgAACzvnptvVoYEL"
    own = "msg_68a2f0c1b7c88191b0f1c2d3e4f5a6b70123456789abcdef"
    for name, left in [(foreign, None), (own, own)]:
        messages = [AIMessage([{"type": "text", "text": "a"}], id=name)]
        assert asked(messages, "openai")[0].id == left
        assert asked(messages, "anthropic") is messages


def test_of_an_unknown_author_what_stands_beside_goes_by_its_name():
    beside = {"tool_outputs": [{}], "__openai_function_call_ids__": {"a": "fc_1"}}
    messages = [AIMessage("a", additional_kwargs={**beside, "mine": 1})]
    assert asked(messages, "openai") is messages
    assert asked(messages, "anthropic")[0].additional_kwargs == {"mine": 1}


# Nobody knows who is asked


def test_an_unknown_reader_gets_only_what_all_can_read():
    messages = thread(claude("v0"), marked=True)
    read = asked(messages, None)
    assert read[2].content == SAID
    assert read[1] is messages[1]  # it may well read the marks


# Marks for prompt caches


MARKED = {
    "block": HumanMessage([{"type": "text", "text": "a", "cache_control": EPHEMERAL}]),
    "extras": HumanMessage(
        [{"type": "image", "url": "u", "extras": {"cache_control": EPHEMERAL}}]
    ),
    "metadata": HumanMessage(
        [{"type": "file", "url": "u", "metadata": {"cache_control": EPHEMERAL}}]
    ),
    "beside": SystemMessage("a", additional_kwargs={"cache_control": EPHEMERAL}),
    "tool": ToolMessage(
        [{"type": "text", "text": "a", "cache_control": EPHEMERAL}], tool_call_id="1"
    ),
    "nested": HumanMessage(
        [
            {
                "type": "tool_result",
                "tool_use_id": "1",
                "content": [{"type": "text", "text": "a", "cache_control": EPHEMERAL}],
            }
        ]
    ),
    "own answer": AIMessage(
        [{"type": "text", "text": "a", "cache_control": EPHEMERAL}],
        response_metadata={"model_provider": "openai"},
    ),
}


@pytest.mark.parametrize("place", MARKED)
def test_marks_go_from_every_message_if_they_are_not_read(place):
    messages = [HumanMessage("q"), MARKED[place], HumanMessage("r")]
    before = deepcopy(messages)
    read = asked(messages, "openai")
    assert "cache_control" not in dumped(read)
    assert read[1].type == messages[1].type
    assert messages == before
    if place != "own answer":
        for reader in ("anthropic", "bedrock", "openrouter", "litellm", None):
            assert asked(messages, reader) is messages


def test_a_point_of_bedrock_is_a_block_of_its_own_and_goes_as_one():
    point = {"cachePoint": {"type": "default"}}
    messages = [HumanMessage([{"type": "text", "text": "a"}, point])]
    assert asked(messages, "amazon_bedrock") is messages
    assert asked(messages, "anthropic")[0].content == [{"type": "text", "text": "a"}]


def test_a_breakpoint_of_openai_is_for_openai():
    block = {"type": "text", "text": "a", "prompt_cache_breakpoint": {}}
    messages = [HumanMessage([block])]
    assert asked(messages, "azure") is messages
    assert asked(messages, "groq")[0].content == [{"type": "text", "text": "a"}]


def test_arguments_of_calls_are_nobodys_marks():
    call = {**CALL, "args": {"cache_control": "no-store"}}
    messages = [AIMessage("", tool_calls=[call])]
    assert asked(messages, "openai") is messages


# Whose model it is


def test_a_model_is_its_providers_unless_it_calls_another_address():
    openai = pytest.importorskip("langchain_openai").ChatOpenAI
    anthropic = pytest.importorskip("langchain_anthropic").ChatAnthropic
    key = {"api_key": "sk-none"}
    for model, expected in [
        (ScriptedChatModel(provider="mistral"), "mistral"),
        (openai(model="gpt-4o-mini", **key), "openai"),
        (openai(model="m", base_url="https://eu.api.openai.com/v1", **key), "openai"),
        (openai(model="m", base_url="http://localhost:8000/v1", **key), None),
        (openai(model="m", base_url="https://notopenai.com/v1", **key), None),
        (anthropic(model="claude-haiku-4-5", **key), "anthropic"),
        (anthropic(model="m", base_url="https://api.deepseek.com/x", **key), None),
    ]:
        assert provider_of(model) == expected


# What real classes make of it


def payloads(provider, **settings):
    """Return payload builders of the real classes, by name."""
    key = {"api_key": "sk-none"}
    if provider == "anthropic":
        chat = pytest.importorskip("langchain_anthropic").ChatAnthropic
        model = chat(
            model="claude-haiku-4-5", max_tokens=9, reuse_last_container=True, **key
        )
        return [model._get_request_payload]
    if provider == "ollama":
        chat = pytest.importorskip("langchain_ollama").ChatOllama
        return [chat(model="qwen3")._convert_messages_to_ollama_messages]
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    kinds = [
        {},
        {"use_responses_api": True, "output_version": "v0"},
        {"use_responses_api": True, "output_version": "responses/v1"},
        {"use_responses_api": True, "output_version": "v1"},
        {"use_responses_api": True, "use_previous_response_id": True},
    ]
    models = [chat(model="gpt-5-mini", **kind, **key) for kind in kinds]
    return [model._get_request_payload for model in models]


FOREIGN = (*BOUND, "cache_control", "output_version", "reasoning", "thinking")


@pytest.mark.parametrize(
    ("shape", "target"),
    [pair for pair in PAIRS if pair[1] in ("anthropic", "ollama", "openai")],
)
def test_no_payload_of_a_real_class_holds_anything_foreign(shape, target):
    marked = target != "anthropic"
    read = asked(thread(SHAPES[shape](), marked=marked), target)
    for build in payloads(target):
        payload = json.dumps(build(read), default=str)
        assert not [word for word in FOREIGN if word in payload]
        assert "previous_response_id" not in payload
        assert "Let me see." in payload
        assert payload.count("It is x.") == 1


def test_the_words_looked_for_are_those_that_would_be_sent():
    messages = thread(claude("v1"), marked=True)
    built = "".join(json.dumps(b(messages), default=str) for b in payloads("openai"))
    assert {"THOUGHT", "SEALED", "srvtoolu_1", "cache_control"} <= {
        word for word in FOREIGN if word in built
    }


def test_anthropic_can_read_what_openai_streamed_in_the_standard_form():
    # Its content is a text, though its metadata says that it is a list of blocks.
    metadata = {"output_version": "v1"}
    said = answer("Hi.", provider="openai", calls=False, metadata=metadata)
    messages = [HumanMessage("a"), said, HumanMessage("b")]
    (build,) = payloads("anthropic")
    assert build(asked(messages, "anthropic"))["messages"][1]["content"] == "Hi."


# Whatever a conversation looks like


CANDIDATES = {"a": "openai", "b": "anthropic", "c": "mistralai", "d": None}
BLOCKS = st.sampled_from(
    [
        "word",
        {"type": "text", "text": "said", "id": "msg_1", "cache_control": EPHEMERAL},
        {"type": "text", "text": ""},
        {"type": "thinking", "thinking": "a", "signature": "s"},
        {"type": "thinking", "thinking": "a"},
        {"type": "reasoning", "reasoning": "a", "id": "rs_1"},
        {"type": "non_standard", "value": {"type": "redacted_thinking", "data": "a"}},
        {"type": "refusal", "refusal": "no"},
        {"type": "server_tool_call", "id": "s", "name": "n", "args": {}},
        {"type": "image", "url": "u", "extras": {"cache_control": EPHEMERAL}},
        {"cachePoint": {"type": "default"}},
    ]
)
CONTENTS = st.one_of(st.sampled_from(["", " ", "said"]), st.lists(BLOCKS, max_size=4))
BESIDE = st.dictionaries(
    st.sampled_from(
        ["reasoning_content", "reasoning", "refusal", "cache_control", "mine"]
    ),
    st.sampled_from([None, "x", {"id": "rs_1"}]),
    max_size=2,
)
NAMES = st.sampled_from(
    ["call_0", "call_1", "a.b:0", "a.b:1", "x" * 41, "x" * 65, "aB3dE6gH9", "é"]
)


@st.composite
def conversations(draw):
    messages, number = [], 0
    for _ in range(draw(st.integers(0, 4))):
        messages.append(HumanMessage(draw(CONTENTS), additional_kwargs=draw(BESIDE)))
        names = draw(st.lists(NAMES, max_size=3))
        metadata = {}
        if who := draw(st.sampled_from([None, *CANDIDATES])):
            metadata["mixllm"] = {"candidate": who}
        if provider := draw(st.sampled_from([None, "openai", "anthropic", "ollama"])):
            metadata["model_provider"] = provider
        calls, answers = [], []
        for name in names:
            calls.append({**CALL, "id": name, "args": {"n": number}})
            answers.append(ToolMessage(str(number), tool_call_id=name))
            number += 1
        blocks = [{"type": "tool_use", "id": n, "name": "look"} for n in names]
        content = draw(CONTENTS)
        if isinstance(content, list) and draw(st.booleans()):
            content = [*content, *blocks]
        messages.append(
            AIMessage(
                content,
                additional_kwargs=draw(BESIDE),
                response_metadata=metadata,
                tool_calls=calls,
                id=draw(st.sampled_from([None, "msg_1", "lc_run--1"])),
            )
        )
        messages += answers
    return messages


@given(
    conversations(),
    st.sampled_from([*TARGETS, None]),
    st.sampled_from([None, *CANDIDATES]),
)
def test_adapting_again_changes_nothing_and_never_what_was_given(
    messages, target, candidate
):
    before = deepcopy(messages)
    task = {"provider": target, "providers": CANDIDATES, "candidate": candidate}
    read = adapted(messages, **task)
    assert messages == before
    assert adapted(read, **task) is read
