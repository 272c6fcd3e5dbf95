"""Prompts with personal data stay where they may go, and are written nowhere."""

import asyncio
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from mixllm_integrations.core.errors import ConfigurationError, NoCandidateError
from mixllm_integrations.langchain import MixLLMChatModel, RoutingRule
from mixllm_integrations.langchain.calls.texts import whole_texts
from mixllm_integrations.store.sql import SQLStore

EMAIL = re.compile(r"[\w.]+@[\w.]+")
PRIVATE = RoutingRule(when=EMAIL, among=["second"], name="personal data")
SECRET = "Write to ann@example.org"


def who(model, prompt, **config):
    return model.invoke(prompt, **config).response_metadata["mixllm"]["candidate"]


def test_a_prompt_with_personal_data_stays_local(pool):
    model = pool(rules=[PRIVATE])
    assert who(model, "What is 2 + 2?") == "best"
    assert who(model, SECRET) == "second"


async def test_the_rule_holds_in_every_mode(pool):
    model = pool(rules=PRIVATE)
    said = [
        (await model.ainvoke(SECRET)).content,
        "".join(chunk.content for chunk in model.stream(SECRET)),
        "".join([chunk.content async for chunk in model.astream(SECRET)]),
        model.batch([SECRET])[0].content,
        model.generate([[HumanMessage(SECRET)]]).generations[0][0].text,
        model.stream_events(SECRET, version="v3").output.text,
    ]
    assert set(said) == {"From the second."}


@pytest.mark.parametrize(
    "earlier",
    [
        [HumanMessage(SECRET), AIMessage("Done.")],
        [HumanMessage([{"type": "text", "text": SECRET}]), AIMessage("Done.")],
        [
            HumanMessage("Who is it?"),
            AIMessage("", tool_calls=[{"name": "find", "args": {"q": "x"}, "id": "1"}]),
            ToolMessage("ann@example.org", tool_call_id="1"),
            AIMessage("Ann."),
        ],
    ],
)
def test_what_was_said_before_counts_too(pool, earlier):
    model = pool(rules=[PRIVATE])
    assert who(model, [*earlier, HumanMessage("And now?")]) == "second"


def test_what_a_tool_is_called_with_counts_too(pool):
    call = {"name": "mail", "args": {"to": "ann@example.org"}, "id": "1"}
    thread = [
        HumanMessage("Tell her."),
        AIMessage("", tool_calls=[call]),
        ToolMessage("sent", tool_call_id="1"),
        HumanMessage("Thanks."),
    ]
    assert who(pool(rules=[PRIVATE]), thread) == "second"


def test_a_failure_does_not_let_it_out(pool, asked):
    model = pool(rules=[PRIVATE], second={"errors": [TimeoutError()] * 3})
    with pytest.raises(TimeoutError):
        model.invoke(SECRET)
    assert not asked(model, "best")


@pytest.mark.parametrize(
    "asks",
    [
        {"config": {"configurable": {"candidate": "best"}}},
        {"config": {"configurable": {"shadow": "best"}}},
        {"model": "best"},
    ],
)
def test_nobody_can_be_forced_past_a_rule(pool, asked, asks):
    model = pool(rules=[PRIVATE])
    with pytest.raises(NoCandidateError, match="'personal data' allows only 'second'"):
        model.invoke(SECRET, **asks)
    assert not asked(model, "best")


def test_a_tool_loop_that_began_elsewhere_does_not_go_on_there(pool):
    model = pool(rules=[PRIVATE])
    began = model.invoke("Who is it?")
    assert began.response_metadata["mixllm"]["candidate"] == "best"
    call = {"name": "find", "args": {}, "id": "1"}
    thread = [
        HumanMessage("Who is it?"),
        began.model_copy(update={"tool_calls": [call]}),
        ToolMessage("ann@example.org", tool_call_id="1"),
    ]
    assert who(model, thread) == "second"


def test_a_function_of_the_messages_may_decide(pool):
    long = RoutingRule(when=lambda messages: len(messages) > 1, among=["second"])
    model = pool(rules=[long])
    assert who(model, "q") == "best"
    assert who(model, [HumanMessage("a"), HumanMessage("b")]) == "second"


def test_a_rule_that_fails_stops_the_call(pool, asked):
    def broken(messages):
        raise ZeroDivisionError("the rule is broken")

    model = pool(rules=[RoutingRule(when=broken, among=["second"])])
    with pytest.raises(ZeroDivisionError):
        model.invoke("q")
    assert not asked(model, "best")
    assert not asked(model, "second")


def test_a_rule_may_require_an_ability(pool):
    rule = RoutingRule(when=re.compile("weather"), requires=["tools"])
    model = pool(rules=[rule], best={"facts": {"tools": False}})
    assert who(model, "q") == "best"
    assert who(model, "How is the weather?") == "second"


def test_explain_names_the_rule(pool):
    told = pool(rules=[PRIVATE]).invoke(SECRET, {"configurable": {"dry_run": True}})
    assert "personal data" in told.content


def test_rules_are_checked_when_the_model_is_made(pool):
    with pytest.raises(ConfigurationError, match="nobody"):
        pool(rules=[RoutingRule(when=EMAIL, among=["nobody"])])
    with pytest.raises(ConfigurationError, match="RoutingRule"):
        pool(rules=["personal"])


def test_rules_may_be_changed_later_and_are_checked_then(pool):
    model = pool()
    model.rules = [PRIVATE]
    assert who(model, SECRET) == "second"
    with pytest.raises(ConfigurationError, match="RoutingRule"):
        model.rules = ["personal"]
    assert who(model.model_copy(update={"rules": ()}), SECRET) == "best"


def test_neither_store_nor_log_ever_sees_a_prompt(scripted_candidate, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "events.db"
    store = SQLStore(f"sqlite:///{path}")
    model = MixLLMChatModel(
        candidates=[
            scripted_candidate("second", quality=0.5, answers=["the hidden answer"]),
            scripted_candidate("best", quality=0.9, errors=[RuntimeError(SECRET)]),
        ],
        store=store,
    )
    model.router.exploration = 0.0
    answer = model.invoke(SECRET, {"configurable": {"session_id": "s"}})
    model.record_feedback(answer, 1.0)
    model.dispatcher.journal.flush()
    assert len(list(store.events())) >= 4
    store.close()
    written = path.read_bytes()
    for secret in ("ann@example.org", "hidden answer"):
        assert secret.encode() not in written
        assert secret not in caplog.text


ADDRESS = "ann@example.org"


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage(f"data: {ADDRESS} owes 5 EUR, remind her"),
        HumanMessage([{"type": "text", "text": f"data: {ADDRESS}"}]),
        HumanMessage(
            [
                {
                    "type": "document",
                    "source": {
                        "type": "text",
                        "media_type": "text/plain",
                        "data": ADDRESS,
                    },
                }
            ]
        ),
        HumanMessage("hello", name=ADDRESS),
        HumanMessage(
            [{"type": "text", "text": "ann@"}, {"type": "text", "text": "example.org"}]
        ),
        AIMessage(
            "", tool_calls=[{"name": "f", "args": {"data": {"to": ADDRESS}}, "id": "1"}]
        ),
        AIMessage(
            "", tool_calls=[{"name": "f", "args": {"signature": ADDRESS}, "id": "1"}]
        ),
        AIMessage("", tool_calls=[{"name": "f", "args": {ADDRESS: 1}, "id": "1"}]),
        AIMessage("", additional_kwargs={"reasoning_content": ADDRESS}),
        AIMessage("", additional_kwargs={"function_call": {"arguments": ADDRESS}}),
    ],
)
def test_a_pattern_is_found_wherever_it_stands_in_what_is_sent(message):
    assert any(EMAIL.search(text) for text in whole_texts(message))


def test_numbers_are_looked_at_too():
    call = {"name": "f", "args": {"ssn": 123456789}, "id": "1"}
    assert "123456789" in whole_texts(AIMessage("", tool_calls=[call]))[0]


def test_the_bytes_of_an_image_are_not_taken_for_text():
    image = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert "AAAA" not in whole_texts(HumanMessage([image, url]))[0]


def test_who_joins_while_a_rule_is_thinking_does_not_get_the_prompt(
    scripted_candidate,
):
    def thinking(messages):
        model.add_candidate(scripted_candidate("cloud", quality=0.99))
        return True

    model = MixLLMChatModel(
        candidates=[scripted_candidate("local", quality=0.1)],
        rules=[RoutingRule(when=thinking, among=["local"])],
    )
    assert who(model, "I am Ann.") == "local"


def test_who_joins_while_a_call_fails_does_not_get_the_prompt(scripted_candidate):
    def failing(messages):
        model.add_candidate(scripted_candidate("cloud", quality=0.99))
        raise ConnectionError("the line is dead")

    model = MixLLMChatModel(
        candidates=[scripted_candidate("local", quality=0.1, answers=failing)],
        rules=[PRIVATE_LOCAL],
    )
    with pytest.raises(ConnectionError):
        model.invoke(SECRET)


PRIVATE_LOCAL = RoutingRule(when=EMAIL, among=["local"])


async def test_models_that_hang_do_not_hold_up_the_decisions_of_others(pool):
    """A rule is asked on a thread of ours, not in the line of the loop's own."""
    loop, release = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    hung = loop.run_in_executor(None, release.wait)
    async with asyncio.timeout(5):
        answer = await pool(rules=[PRIVATE]).ainvoke(SECRET)
    release.set()
    await hung
    assert answer.text == "From the second."
