"""How candidates are named, priced, and found able; how pools are set up."""

import copy
import logging
import os

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

import mixllm_integrations
from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    UnknownCandidateError,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.langchain import (
    CandidateModel,
    ChatMixLLM,
    MixLLMChatModel,
)
from mixllm_integrations.store import open_store
from mixllm_integrations.testing import ScriptedChatModel


class Toolless(BaseChatModel):
    """Offers nothing but answers."""

    @property
    def _llm_type(self):
        return "toolless"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage("hi"))])


def gpt(model="gpt-4o-mini", **kwargs):
    return ScriptedChatModel(model=model, provider="openai", **kwargs)


def free(model, name="x", **facts):
    return CandidateModel(
        model=model,
        name=name,
        input_cost_per_million_tokens=0,
        output_cost_per_million_tokens=0,
        **facts,
    ).candidate()


def test_a_plain_chat_model_is_named_and_priced_by_what_it_tells():
    model = MixLLMChatModel(candidates=[gpt(), gpt("gpt-4o")])
    small, large = model.router.candidates
    assert small.name == "gpt-4o-mini"
    # OpenAI's list: 0.15 and 0.60; 2.50 and 10 USD per million tokens.
    assert small.input_cost_per_million_tokens == pytest.approx(0.15)
    assert small.output_cost_per_million_tokens == pytest.approx(0.60)
    assert large.input_cost_per_million_tokens == pytest.approx(2.50)
    assert small.context_window == 128_000


def test_an_unknown_price_is_an_error_that_says_what_to_pass():
    with pytest.raises(ConfigurationError, match=r"scripted.*CandidateModel"):
        MixLLMChatModel(candidates=[ScriptedChatModel()])


def test_one_price_passed_and_the_other_from_the_list():
    facts = CandidateModel(model=gpt(), input_cost_per_million_tokens=7.0).candidate()
    assert facts.input_cost_per_million_tokens == 7.0
    assert facts.output_cost_per_million_tokens == pytest.approx(0.60)


def test_a_price_of_0_is_legal_and_a_negative_one_is_not():
    assert free(ScriptedChatModel()).input_cost_per_million_tokens == 0
    with pytest.raises(ConfigurationError, match="input_cost_per_million_tokens"):
        CandidateModel(
            model=ScriptedChatModel(),
            input_cost_per_million_tokens=-1,
            output_cost_per_million_tokens=0,
        ).candidate()


def test_a_model_without_a_name_needs_one():
    with pytest.raises(ConfigurationError, match=r"Toolless.*name=\.\.\."):
        CandidateModel(
            model=Toolless(),
            input_cost_per_million_tokens=0,
            output_cost_per_million_tokens=0,
        ).candidate()


def test_what_is_no_chat_model_is_refused_with_the_remedy():
    retrying = gpt().with_retry()
    for wrong in (retrying, "gpt-4o", None):
        with pytest.raises(ConfigurationError, match="must be a LangChain chat model"):
            MixLLMChatModel(candidates=[wrong])


def test_candidates_are_described_by_keywords_only():
    with pytest.raises(TypeError):
        CandidateModel(gpt())


def test_a_timeout_must_be_positive():
    with pytest.raises(ConfigurationError, match="timeout_seconds"):
        CandidateModel(model=gpt(), timeout_seconds=0)


class TestAbilities:
    """From the profile, overridable; without one from what the class offers."""

    def test_without_a_profile_the_class_tells(self):
        able, unable = free(ScriptedChatModel()), free(Toolless())
        assert (able.tools, able.structured_output, able.vision) == (True, True, None)
        assert (unable.tools, unable.structured_output) == (False, False)

    def test_the_profile_wins_over_the_class(self):
        facts = free(
            ScriptedChatModel(
                profile={
                    "tool_calling": False,
                    "structured_output": False,
                    "image_inputs": True,
                    "max_input_tokens": 4_000,
                }
            )
        )
        assert (facts.tools, facts.structured_output) == (False, False)
        assert (facts.vision, facts.context_window) == (True, 4_000)

    def test_a_model_that_calls_tools_fills_schemas_through_one(self):
        profile = {"tool_calling": True, "structured_output": False}
        assert free(ScriptedChatModel(profile=profile)).structured_output

    def test_what_is_passed_wins_over_the_profile(self):
        facts = free(
            ScriptedChatModel(profile={"tool_calling": True, "image_inputs": True}),
            tools=False,
            structured_output=True,
            vision=False,
            context_window=10,
        )
        assert (facts.tools, facts.structured_output) == (False, True)
        assert (facts.vision, facts.context_window) == (False, 10)


class TestProfile:
    """The routed model's profile is what all candidates have."""

    def profile_of(self, *profiles):
        return MixLLMChatModel(
            candidates=[
                CandidateModel(
                    model=ScriptedChatModel(model=f"m{n}", profile=profile),
                    input_cost_per_million_tokens=1,
                    output_cost_per_million_tokens=1,
                )
                for n, profile in enumerate(profiles)
            ]
        ).profile

    def test_abilities_are_shared_by_all_and_limits_are_the_smallest(self):
        assert self.profile_of(
            {"tool_calling": True, "image_inputs": True, "max_input_tokens": 9_000},
            {"tool_calling": True, "image_inputs": False, "max_input_tokens": 4_000},
        ) == {"tool_calling": True, "image_inputs": False, "max_input_tokens": 4_000}

    def test_what_one_does_not_tell_is_not_claimed(self):
        common = self.profile_of(
            {"tool_calling": True, "structured_output": True}, {"tool_calling": True}
        )
        assert common == {"tool_calling": True}

    def test_without_profiles_there_is_none(self):
        assert self.profile_of(None, None) is None

    def test_a_profile_can_be_passed(self, pool):
        assert pool(profile={"tool_calling": True}).profile == {"tool_calling": True}


class TestPool:
    """How a routed model is set up, changed and copied."""

    def test_both_names_are_one_class_and_public(self):
        assert ChatMixLLM is MixLLMChatModel
        assert mixllm_integrations.MixLLMChatModel is MixLLMChatModel

    def test_no_candidates_is_an_error(self):
        with pytest.raises(NoCandidateError):
            MixLLMChatModel(candidates=[])

    def test_two_candidates_with_one_name_are_an_error(self):
        with pytest.raises(ConfigurationError, match="'gpt-4o-mini'"):
            MixLLMChatModel(candidates=[gpt(), gpt()])

    def test_an_unknown_argument_is_an_error_that_names_the_known_ones(self):
        with pytest.raises(
            ConfigurationError, match=r"'willingnes_to_pay'.*willingness_to_pay"
        ):
            MixLLMChatModel(candidates=[gpt()], willingnes_to_pay=1.0)

    def test_the_willingness_to_pay_reaches_the_router(self):
        model = MixLLMChatModel(candidates=[gpt()], willingness_to_pay=0.25)
        assert model.router.willingness_to_pay == 0.25
        record = model.invoke("q").response_metadata["mixllm"]
        assert record["willingness_to_pay"] == 0.25

    def test_a_bad_willingness_to_pay_is_an_error(self):
        with pytest.raises(ConfigurationError, match="willingness_to_pay"):
            MixLLMChatModel(candidates=[gpt()], willingness_to_pay=-1.0)

    def test_a_given_router_is_extended_and_its_others_are_not_asked(self, caplog):
        router = Router(
            [
                Candidate("gpt-4o", 1.0, 2.0, prior_quality=0.8),
                Candidate("elsewhere", 0.0, 0.0, prior_quality=1.0),
            ]
        )
        with caplog.at_level(logging.INFO):
            model = MixLLMChatModel(candidates=[gpt(), gpt("gpt-4o")], router=router)
        assert model.router is router
        known = {candidate.name: candidate for candidate in router.candidates}
        assert set(known) == {"gpt-4o", "elsewhere", "gpt-4o-mini"}
        assert set(model.among()) == {"gpt-4o", "gpt-4o-mini"}
        model.invoke("q")
        # What the router knew wins over the list price.
        assert known["gpt-4o"].input_cost_per_million_tokens == 1.0
        assert known["gpt-4o"].prior_quality == 0.8
        assert "'gpt-4o-mini' is new to the router" in caplog.text
        assert "'elsewhere' was not passed to the model" in caplog.text

    def test_a_routers_price_stands_in_for_an_unknown_one(self):
        router = Router([Candidate("scripted", 3.0, 4.0)])
        model = MixLLMChatModel(candidates=[ScriptedChatModel()], router=router)
        assert model.router.candidates[0].output_cost_per_million_tokens == 4.0

    def test_a_price_that_was_passed_wins_over_the_routers(self, scripted_candidate):
        router = Router([Candidate("a", 3.0, 4.0)])
        MixLLMChatModel(candidates=[scripted_candidate("a", price=9.0)], router=router)
        assert router.candidates[0].input_cost_per_million_tokens == 9.0

    def test_candidates_come_and_go_at_run_time(self, pool, scripted_candidate):
        model = pool()
        model.add_candidate(scripted_candidate("top", quality=1.0, answers=["Top."]))
        assert model.invoke("q").content == "Top."
        model.remove_candidate("top")
        assert model.invoke("q").content == "From the best."
        assert len(model.candidates) == 2
        with pytest.raises(UnknownCandidateError):
            model.remove_candidate("top")

    def test_who_joins_while_seats_are_prepared_has_one(self, scripted_candidate):
        class Slow(ScriptedChatModel):
            def model_copy(self, **kwargs):
                if joins:
                    model.add_candidate(joins.pop())
                return super().model_copy(**kwargs)

        joins = []
        slow = CandidateModel(
            model=Slow(model="slow"),
            input_cost_per_million_tokens=1,
            output_cost_per_million_tokens=1,
        )
        model = MixLLMChatModel(candidates=[slow])
        model.temperature = 0.5
        joins.append(scripted_candidate("top"))
        model.invoke("q")
        assert model.names() == ("slow", "top")

    def test_a_name_that_is_taken_cannot_be_added(self, pool, scripted_candidate):
        with pytest.raises(ConfigurationError, match="'best'"):
            pool().add_candidate(scripted_candidate("best"))

    def test_other_candidates_of_a_shared_router_are_never_chosen(self, pool):
        model = pool()
        model.router.add_candidate(Candidate("elsewhere", 0, 0, prior_quality=1.0))
        assert model.invoke("q").content == "From the best."

    def test_copies_share_models_and_learning(self, pool):
        model = pool()
        for other in (copy.deepcopy(model), copy.copy(model), model.model_copy()):
            assert other is not model
            assert other.router is model.router
            assert other.seat("best").model is model.seat("best").model
            answer = other.invoke("q")
            assert model.record_feedback(answer, 1.0)

    def test_it_can_be_configured_at_run_time(self, pool):
        from langchain_core.runnables import ConfigurableField

        model = pool().configurable_fields(max_tokens=ConfigurableField(id="limit"))
        answer = model.invoke("q", {"configurable": {"limit": 2}})
        assert answer.content == "From the"

    def test_events_go_to_a_store(self, pool, tmp_path):
        url = f"sqlite:///{os.fspath(tmp_path)}/events.db"
        with open_store(url) as store:
            model = pool(store=store)
            model.record_feedback(model.invoke("a secret question"), 1.0)
            events = list(store.events())
        assert [event.kind for event in events] == ["decision", "outcome", "feedback"]
        assert "secret" not in repr(events)


class TestFeedback:
    """Feedback changes what the router expects."""

    async def test_it_is_taken_once_in_every_form(self, pool):
        model = pool()
        answer = model.invoke("q")
        assert model.record_feedback(answer, 0.5)
        assert not model.record_feedback(answer, 0.5)
        record = (await model.ainvoke("q")).response_metadata["mixllm"]
        assert await model.arecord_feedback(record["decision_id"], 1.0, kind="binary")

    def test_bad_answers_send_the_question_elsewhere(self, pool):
        model = pool()
        for _ in range(40):
            answer = model.invoke("What is the capital of Mongolia?")
            good = answer.content == "From the second."
            model.record_feedback(answer, 1.0 if good else 0.0)
        assert model.invoke("What is the capital of Mongolia?").content == (
            "From the second."
        )

    def test_a_reward_out_of_range_is_an_error_and_may_be_corrected(self, pool):
        model = pool()
        answer = model.invoke("q")
        with pytest.raises(ConfigurationError, match="reward"):
            model.record_feedback(answer, 1.5)
        assert model.record_feedback(answer, 1.0)

    def test_an_answer_of_another_model_is_refused(self, pool):
        with pytest.raises(ConfigurationError, match="AIMessage"):
            pool().record_feedback(AIMessage("hi"), 1.0)
