"""Who competes: rules, newcomers, renames, and one router for both frameworks."""

import logging
import re
import threading

import pytest
from llama_index.core.base.llms.types import (
    CacheControl,
    CachePoint,
    ChatMessage,
    ImageBlock,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager

from mixllm_integrations import (
    Candidate,
    ConfigurationError,
    NoCandidateError,
    Router,
    UnknownCandidateError,
)
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.llama_index import CandidateLLM, MixLLM, RoutingRule
from mixllm_integrations.testing import ScriptedChatModel, ScriptedLLM

PRICES = {"input_cost_per_million_tokens": 1.0, "output_cost_per_million_tokens": 1.0}
MAIL = re.compile(r"[\w.]+@[\w.]+")


def candidate(name, quality=0.5, **script):
    return CandidateLLM(
        llm=ScriptedLLM(model=f"{name}-2024", **script),
        name=name,
        prior_quality=quality,
        **PRICES,
    )


def pool(**settings):
    llm = MixLLM(
        [candidate("cloud", 0.9), candidate("local", 0.3)],
        **{"willingness_to_pay": 1.0, **settings},
    )
    llm.router.exploration = 0.0
    return llm


def who(response):
    return response.additional_kwargs["mixllm"]["candidate"]


def personal(**kwargs):
    return RoutingRule(
        **{"when": MAIL, "among": ["local"], "name": "personal data", **kwargs}
    )


class TestRules:
    def test_a_pattern_keeps_what_it_finds_with_those_allowed(self):
        llm = pool(rules=[personal()])
        assert who(llm.complete("mail ann@example.org")) == "local"
        assert who(llm.complete("mail nobody")) == "cloud"

    @pytest.mark.parametrize(
        "message",
        [
            ChatMessage(role="assistant", content="ann@example.org"),
            ChatMessage(blocks=[TextBlock(text="ann@exam"), TextBlock(text="ple.org")]),
            ChatMessage(
                role="assistant",
                blocks=[
                    ToolCallBlock(
                        tool_name="mail", tool_kwargs={"to": ["ann@example.org"]}
                    )
                ],
            ),
            ChatMessage("x", additional_kwargs={"tool_calls": [{"a": "a@b.org"}]}),
        ],
        ids=["earlier", "split", "tool", "beside"],
    )
    def test_it_is_found_wherever_it_stands(self, message):
        llm = pool(rules=[personal()])
        assert who(llm.chat([message, ChatMessage("and now?")])) == "local"

    def test_names_of_fields_files_and_our_records_are_no_texts(self):
        told = {"mixllm": {"decision_id": "d@e.org"}, "n": 3, "nothing": None}
        blocks = [
            ImageBlock(image=b"YW5uQGV4YW1wbGUub3Jn"),
            CachePoint(cache_control=CacheControl(type="ephemeral")),
        ]
        seen = []
        rule = RoutingRule(
            when=re.compile("block_type|decision|d@e|YW5u"), among=["local"]
        )
        llm = pool(rules=[rule], query_from=lambda said: seen.append(said) or "x")
        message = ChatMessage(blocks=blocks, additional_kwargs=told)
        assert who(llm.chat([message])) == "cloud"
        assert len(seen) == 1

    def test_a_function_sees_the_messages(self):
        seen = []
        rule = personal(when=lambda messages: seen.append(messages) or True)
        llm = pool(rules=rule)
        assert who(llm.chat([ChatMessage("hello")])) == "local"
        assert seen == [[ChatMessage("hello")]]

    async def test_it_is_asked_on_a_thread_of_its_own(self):
        threads = []
        rule = personal(when=lambda _: threads.append(threading.get_ident()) or True)
        assert who(await pool(rules=[rule]).acomplete("hello")) == "local"
        assert threading.get_ident() not in threads

    def test_a_forced_candidate_obeys(self):
        llm = pool(rules=[personal()])
        with pytest.raises(NoCandidateError, match="personal data"):
            llm.complete("ann@example.org", candidate="cloud")

    def test_a_failure_does_not_lead_past_it(self):
        llm = MixLLM(
            [candidate("cloud"), candidate("local", errors=[TimeoutError()])],
            rules=[personal()],
        )
        with pytest.raises(TimeoutError):
            llm.complete("ann@example.org")

    def test_it_may_ask_for_an_ability(self):
        plain = candidate("plain", 0.99, is_function_calling_model=False)
        rule = RoutingRule(when=lambda _: True, requires=["tools"])
        llm = MixLLM([plain, candidate("able")], rules=[rule], willingness_to_pay=1.0)
        assert who(llm.complete("hello")) == "able"

    def test_one_that_names_nobody_is_an_error(self):
        with pytest.raises(ConfigurationError, match="'elsewhere'"):
            pool(rules=[personal(among=["elsewhere"])])
        llm = pool()
        with pytest.raises(ConfigurationError, match="'elsewhere'"):
            llm.rules = [personal(among=["elsewhere"])]

    def test_it_may_be_set_at_any_time(self):
        llm = pool()
        llm.rules = [personal()]
        assert who(llm.complete("ann@example.org")) == "local"


class TestComingAndGoing:
    def test_a_newcomer_competes_at_once(self):
        llm = pool()
        llm.add_candidate(candidate("new", 0.99))
        assert who(llm.complete("hello")) == "new"
        assert llm.metadata.is_function_calling_model
        assert "new" in repr(llm)

    def test_a_bare_llm_may_come(self):
        llm = pool()
        llm.add_candidate(ScriptedLLM(model="gpt-4o-mini"))
        assert llm.names() == ("cloud", "local", "gpt-4o-mini")

    def test_a_name_that_is_taken_is_an_error(self):
        with pytest.raises(ConfigurationError, match="'local'"):
            pool().add_candidate(candidate("local"))

    def test_a_newcomer_reports_to_the_manager_of_the_others(self):
        manager = CallbackManager([])
        llm = pool(callback_manager=manager)
        llm.add_candidate(candidate("new"))
        assert llm.seat("new").llm.callback_manager is manager

    def test_who_leaves_is_asked_no_more_and_may_come_again(self):
        llm = pool()
        llm.remove_candidate("cloud")
        assert who(llm.complete("hello")) == "local"
        assert llm.names() == ("local",)
        with pytest.raises(UnknownCandidateError, match="'cloud'"):
            llm.remove_candidate("cloud")
        llm.add_candidate(candidate("cloud", 0.9))
        assert who(llm.complete("hello")) == "cloud"

    def test_the_last_may_leave_and_nobody_answers(self):
        llm = pool()
        for name in ("cloud", "local"):
            llm.remove_candidate(name)
        with pytest.raises(NoCandidateError):
            llm.complete("hello")
        assert not llm.metadata.is_function_calling_model

    def test_a_renamed_one_goes_on_with_its_rules_and_feedback(self):
        llm = pool(rules=[personal()], shadow=None)
        before = llm.complete("ann@example.org")
        llm.rename_candidate("local", "cellar")
        after = llm.complete("ann@example.org")
        assert who(after) == "cellar"
        assert llm.record_feedback(before, 1.0)
        assert [c.name for c in llm.router.candidates] == ["cloud", "cellar"]

    def test_one_renamed_in_the_middle_of_a_call_still_answers(self):
        def answer(messages):
            llm.rename_candidate("cloud", "sky")
            return "hello"

        entries = [candidate("cloud", 0.9, answers=answer), candidate("local", 0.1)]
        llm = MixLLM(entries, willingness_to_pay=1.0)
        assert who(llm.complete("hello")) == "cloud"
        assert llm.names() == ("sky", "local")
        assert llm.seat("cloud") is llm.seat("sky")

    def test_a_loop_stays_with_a_candidate_that_was_renamed(self):
        llm = pool()
        asked = llm.chat([ChatMessage("hello")], candidate="local").message
        llm.rename_candidate("local", "cellar")
        result = ChatMessage(role="tool", content="4")
        answer = llm.chat([ChatMessage("hello"), asked, result])
        assert who(answer) == "cellar"
        found = llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
        assert found == []

    def test_two_llms_on_one_router_follow_each_others_renames(self):
        one = pool()
        two = MixLLM([candidate("cloud"), candidate("local")], router=one.router)
        one.rename_candidate("cloud", "sky")
        assert two.names() == ("sky", "local")

    @pytest.mark.parametrize("call", ["remove_candidate", "rename_candidate", "seat"])
    def test_an_unknown_name_is_an_error(self, call):
        arguments = ("x", "y") if call == "rename_candidate" else ("x",)
        with pytest.raises(UnknownCandidateError, match="'x'"):
            getattr(pool(), call)(*arguments)

    def test_one_that_the_router_lost_is_missed_once(self, caplog):
        llm = pool()
        llm.router.remove_candidate("cloud")
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert who(llm.complete("hello")) == "local"
        assert len(caplog.records) == 1

    def test_other_candidates_may_be_set(self):
        llm = pool()
        llm.candidates = [candidate("new")]
        assert who(llm.complete("hello")) == "new"
        with pytest.raises(ConfigurationError, match="'twice'"):
            llm.candidates = [candidate("twice"), candidate("twice")]

    def test_a_setting_of_the_dispatcher_holds_from_the_next_call_on(self):
        llm = pool()
        llm.cooldown_seconds = 0.0
        llm.seat("cloud").llm.errors = [TimeoutError()]
        assert [who(llm.complete("hello")) for _ in range(2)] == ["local", "cloud"]


class TestSettings:
    @pytest.mark.parametrize("wrong", ["hello", ChatMessage("hello")])
    def test_one_message_alone_is_no_conversation(self, wrong):
        with pytest.raises(ConfigurationError, match=r"list of ChatMessage.*complete"):
            pool().chat(wrong)

    @pytest.mark.parametrize(
        "wrong", [ScriptedLLM(), candidate("one"), "gpt-4o", {"a": 1}, 7]
    )
    def test_one_candidate_alone_is_no_list(self, wrong):
        with pytest.raises(ConfigurationError, match=r"list.*first_llm"):
            MixLLM(wrong)

    @pytest.mark.parametrize("wrong", ["router", 7])
    def test_what_is_no_router_is_refused(self, wrong):
        with pytest.raises(ConfigurationError, match="must be a Router"):
            MixLLM([candidate("one")], router=wrong)

    @pytest.mark.parametrize("wrong", [0, -1, "much"])
    def test_a_willingness_to_pay_of_no_use_is_refused(self, wrong):
        llm = pool()
        with pytest.raises(ConfigurationError, match="willingness_to_pay"):
            llm.willingness_to_pay = wrong

    def test_a_shadow_may_be_set_and_is_checked(self):
        llm = pool()
        llm.shadow = "local"
        assert who(llm.complete("hello")) == "local"
        with pytest.raises(UnknownCandidateError, match="'x'"):
            llm.shadow = "x"
        llm.shadow = None
        assert who(llm.complete("hello")) == "cloud"

    def test_a_query_that_is_no_text_is_refused(self):
        with pytest.raises(ConfigurationError, match="int"):
            pool(query_from=len).complete("hello")

    def test_from_dict_gives_each_llm_what_was_known_of_it(self):
        llm = pool(shadow="local", max_retries=1)
        bare = [ScriptedLLM(model="a"), ScriptedLLM(model="b")]
        again = MixLLM.from_dict(llm.to_dict(), candidates=bare)
        assert again.names() == ("cloud", "local")
        assert (again.shadow, again.max_retries) == ("local", 1)
        named = CandidateLLM(llm=ScriptedLLM(), name="local")
        data = {**llm.to_dict(), "shadow": None}
        fewer = MixLLM.from_dict(data, candidates=[named])
        assert fewer.candidates[0].prior_quality == 0.3

    def test_from_json_says_whose_llms_are_missing(self):
        with pytest.raises(ConfigurationError, match="'cloud', 'local'"):
            MixLLM.from_json(pool().to_json())
        with pytest.raises(ConfigurationError, match="not a str"):
            MixLLM.from_dict(pool().to_dict(), candidates=["cloud", "local"])


class TestBothFrameworks:
    @pytest.fixture
    def both(self):
        chat = MixLLMChatModel(
            candidates=[
                CandidateModel(
                    model=ScriptedChatModel(answers=["hello"]),
                    name=name,
                    prior_quality=quality,
                    **PRICES,
                )
                for name, quality in (("cloud", 0.9), ("local", 0.3))
            ]
        )
        chat.router.exploration = 0.0
        entries = [candidate("cloud", 0.9), candidate("local", 0.3)]
        llm = MixLLM(entries, router=chat.router, willingness_to_pay=1.0)
        return chat, llm

    def test_one_router_one_dispatcher(self, both):
        chat, llm = both
        assert llm.router is chat.router
        assert llm.dispatcher is chat.dispatcher
        assert [c.name for c in llm.router.candidates] == ["cloud", "local"]

    def test_each_has_its_own_willingness_to_pay(self, both):
        chat, llm = both
        before = chat.router.willingness_to_pay
        assert llm.complete("x").additional_kwargs["mixllm"]["willingness_to_pay"] == 1
        record = chat.invoke("x").response_metadata["mixllm"]
        assert record["willingness_to_pay"] == before != 1

    def test_each_takes_feedback_on_answers_of_the_other(self, both):
        chat, llm = both
        assert llm.record_feedback(chat.invoke("hello"), 1.0)
        assert chat.record_feedback(llm.complete("hello"), 1.0)

    def test_who_failed_in_one_is_left_out_in_the_other(self, both):
        chat, llm = both
        llm.seat("cloud").llm.errors = [TimeoutError()]
        assert who(llm.complete("hello")) == "local"
        record = chat.invoke("hello", willingness_to_pay=1.0)
        assert record.response_metadata["mixllm"]["candidate"] == "local"

    def test_a_rename_in_one_is_one_in_the_other(self, both):
        chat, llm = both
        chat.rename_candidate("cloud", "sky")
        assert llm.names() == ("sky", "local")
        assert who(llm.complete("hello")) == "sky"

    def test_a_session_of_one_goes_on_in_the_other(self, both):
        chat, llm = both
        llm.complete("hello", candidate="local", session_id="s")
        assert chat.dispatcher.sessions.head_start("s") == {"local": 0.02}

    def test_each_may_have_candidates_of_its_own(self, both):
        chat, llm = both
        llm.add_candidate(candidate("only here", 0.99))
        assert who(llm.complete("hello")) == "only here"
        answer = chat.invoke("hello", willingness_to_pay=1.0)
        assert answer.response_metadata["mixllm"]["candidate"] == "cloud"


def test_a_fitted_routers_weights_are_left_as_they_are():
    router = Router([Candidate("cloud", 1.0, 1.0)], willingness_to_pay=0.5)
    llm = MixLLM([candidate("cloud")], router=router, willingness_to_pay=2.0)
    told = llm.complete("x").additional_kwargs["mixllm"]["willingness_to_pay"]
    assert (told, router.willingness_to_pay) == (2.0, 0.5)
