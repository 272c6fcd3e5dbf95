"""Settings hold as soon as they are set, for one model or one call, and no other."""

import pytest
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from pydantic import BaseModel

from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    UnknownCandidateError,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Sum(BaseModel):
    """A sum."""

    total: int


class Unbending(ScriptedChatModel):
    """Refuses every tool and every schema."""

    def bind_tools(self, tools, **kwargs):
        raise TypeError("cannot express these tools")

    def with_structured_output(self, schema, **kwargs):
        raise TypeError("cannot express this schema")


def worth(answer):
    return answer.response_metadata["mixllm"]["willingness_to_pay"]


def who(answer):
    return answer.response_metadata["mixllm"]["candidate"]


def unbending(name, quality, **script):
    return CandidateModel(
        model=Unbending(model=f"{name}-2024", usage=(10, 2), **script),
        name=name,
        input_cost_per_million_tokens=1.0,
        output_cost_per_million_tokens=2.0,
        prior_quality=quality,
    )


class TestWillingnessToPay:
    """It belongs to a model or a call; the shared router keeps its own."""

    def test_that_of_one_configured_call_changes_no_other(self, pool):
        model = pool()
        chat = model.configurable_fields(
            willingness_to_pay=ConfigurableField(id="worth")
        )
        assert worth(chat.invoke("q", {"configurable": {"worth": 100.0}})) == 100.0
        assert worth(chat.invoke("q")) == 0.01
        assert model.router.willingness_to_pay == 0.01

    def test_two_models_on_one_router_keep_their_own(self, scripted_candidate):
        candidates = [scripted_candidate("a"), scripted_candidate("b")]
        first = MixLLMChatModel(candidates=candidates)
        second = MixLLMChatModel(
            candidates=candidates, router=first.router, willingness_to_pay=5.0
        )
        assert (worth(first.invoke("q")), worth(second.invoke("q"))) == (0.01, 5.0)

    async def test_it_can_be_set_changed_copied_and_passed_with_a_call(self, pool):
        model = pool()
        model.willingness_to_pay = 5.0
        assert worth(model.invoke("q")) == 5.0
        assert "willingness_to_pay=5.0" in repr(model)
        copy = model.model_copy(update={"willingness_to_pay": 7.0})
        assert (worth(copy.invoke("q")), worth(model.invoke("q"))) == (7.0, 5.0)
        assert worth(await model.ainvoke("q", willingness_to_pay=9.0)) == 9.0
        model.willingness_to_pay = None
        assert worth(model.invoke("q")) == model.router.willingness_to_pay == 0.01

    def test_a_bad_one_is_refused_wherever_it_comes_from(self, pool):
        model = pool()
        with pytest.raises(ConfigurationError, match="willingness_to_pay"):
            pool(router=model.router, willingness_to_pay=0)
        with pytest.raises(ConfigurationError, match="willingness_to_pay"):
            model.willingness_to_pay = -1.0
        with pytest.raises(ConfigurationError, match="willingness_to_pay"):
            model.invoke("q", willingness_to_pay=-1.0)


class TestSharing:
    """Copies, configured models and models on one router."""

    def test_a_configured_call_knows_who_is_cooling_down(self, pool, asked, tmp_path):
        store = f"sqlite:///{(tmp_path / 'events.db').as_posix()}"
        model = pool(best={"errors": [TimeoutError()]}, store=store)
        chat = model.configurable_fields(max_tokens=ConfigurableField(id="limit"))
        for limit in (5, 6):
            answer = chat.invoke("q", {"configurable": {"limit": limit}})
            assert who(answer) == "second"
        assert len(asked(model, "best")) == 1
        again = model.model_copy(update={"temperature": 0.3})
        assert again.dispatcher is model.dispatcher
        assert set(model.dispatcher.cooldown.due()) == {"best"}

    def test_one_router_serves_models_with_other_candidates(self, scripted_candidate):
        first = MixLLMChatModel(
            candidates=[scripted_candidate("a"), scripted_candidate("b")]
        )
        second = MixLLMChatModel(
            candidates=[
                scripted_candidate("c", quality=0.99),
                scripted_candidate("d", quality=0.99),
            ],
            router=first.router,
        )
        assert who(first.invoke("q")) in {"a", "b"}
        assert who(second.invoke("q")) in {"c", "d"}
        with pytest.raises(UnknownCandidateError):
            first.seat("c")

    def test_equally_many_other_candidates_are_not_taken_for_ones_own(
        self, scripted_candidate
    ):
        model = MixLLMChatModel(
            candidates=[scripted_candidate("a"), scripted_candidate("b")]
        )
        other = scripted_candidate("c", quality=0.99).candidate()
        model.router.add_candidate(other)
        model.router.remove_candidate("b")
        assert len(model.router.candidates) == 2
        assert who(model.invoke("q")) == "a"
        model.router.remove_candidate("a")
        with pytest.raises(NoCandidateError, match=r"'a'.*removed from the router"):
            model.invoke("q")

    def test_a_copy_gets_candidates_of_its_own(self, pool, scripted_candidate):
        model = pool()
        copy = model.model_copy()
        copy.add_candidate(scripted_candidate("top", quality=1.0))
        assert who(copy.invoke("q")) == "top"
        assert who(model.invoke("q")) == "best"
        assert len(model.candidates) == 2


class TestChanged:
    """What is set later holds like what was passed at first."""

    def test_a_setting_reaches_whoever_answers(self, pool):
        model = pool()
        model.invoke("q")
        model.temperature = 0.7
        assert model.seat("best").model.temperature == 0.7
        copy = model.model_copy(update={"max_tokens": 2})
        assert copy.invoke("q").content == "From the"
        assert copy.seat("best").model.temperature == 0.7
        assert model.invoke("q").content == "From the best."
        copy.timeout = 9.0
        assert copy.seat("best").timeout_seconds == 9.0
        assert model.seat("best").timeout_seconds is None

    def test_a_new_cooldown_or_router_is_used(self, pool):
        model = pool()
        model.cooldown_seconds = 2.0
        assert model.dispatcher.cooldown.seconds == 2.0
        router = Router([c.candidate() for c in model.candidates])
        model.router = router
        assert model.dispatcher.router is router
        answer = model.invoke("q")
        assert router.record_feedback(
            answer.response_metadata["mixllm"]["decision_id"], 1.0
        )

    def test_new_candidates_are_wrapped_and_the_profile_is_theirs(self, pool):
        model = pool()
        assert model.profile is None
        one = ScriptedChatModel(
            model="gpt-4o", provider="openai", profile={"tool_calling": True}
        )
        model.candidates = [one]
        assert who(model.invoke("q")) == "gpt-4o"
        assert model.profile == {"tool_calling": True}
        with pytest.raises(ConfigurationError, match="two candidates"):
            model.candidates = [one, one]
        assert len(model.candidates) == 1

    def test_an_unknown_or_bad_setting_changes_nothing(self, pool):
        model = pool(timeout=3.0)
        with pytest.raises(ConfigurationError, match="'temprature'"):
            model.model_copy(update={"temprature": 0.3})
        with pytest.raises(ConfigurationError, match="timeout"):
            model.timeout = -1
        assert model.timeout == 3.0


class TestRefused:
    """What cannot be used is refused at once, with the remedy."""

    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1"])
    def test_a_timeout_that_is_no_time(self, pool, seconds):
        with pytest.raises(ConfigurationError, match="timeout"):
            pool(timeout=seconds)

    @pytest.mark.parametrize("retries", [-1, 1.5, True])
    def test_retries_that_are_no_count(self, pool, retries):
        with pytest.raises(ConfigurationError, match=r"max_retries.*at least 0"):
            pool(max_retries=retries)

    def test_candidates_that_are_no_list(self, scripted_candidate):
        one = scripted_candidate("a")
        for wrong in (None, one, one.model, "gpt-4o", {"a": one}, 3):
            with pytest.raises(ConfigurationError, match=r"pass candidates=\["):
                MixLLMChatModel(candidates=wrong)

    def test_a_folder_or_anything_else_for_a_router(self, pool, tmp_path):
        with pytest.raises(ConfigurationError, match=r"Router\.load\('folder'\)"):
            pool(router="folder")
        with pytest.raises(ConfigurationError, match=r"Router\.load\("):
            pool(router=tmp_path)
        with pytest.raises(ConfigurationError, match="must be a Router, not a dict"):
            pool(router={})

    async def test_a_query_that_is_no_text(self, pool, load_of):
        model = pool(query_from=lambda messages: messages)
        with pytest.raises(ConfigurationError, match=r"query_from.*not a list"):
            model.invoke("q")
        with pytest.raises(ConfigurationError, match=r"query_from.*not a list"):
            await model.ainvoke("q")
        assert load_of(model) == 0


class TestChosenByModel:
    """`model=` takes a candidate's name, or what its provider calls its model."""

    def test_both_names_choose_the_candidate(self, pool, asked):
        model = pool()
        assert who(model.invoke("q", model="second")) == "second"
        assert who(model.invoke("q", model="second-2024")) == "second"
        assert all("model" not in call.kwargs for call in asked(model, "second"))

    def test_a_model_of_several_candidates_leaves_the_choice_among_them(self):
        def facts(name, model, quality):
            return CandidateModel(
                model=ScriptedChatModel(model=model),
                name=name,
                input_cost_per_million_tokens=1,
                output_cost_per_million_tokens=1,
                prior_quality=quality,
            )

        model = MixLLMChatModel(
            candidates=[
                facts("eu", "same", 0.4),
                facts("us", "same", 0.6),
                facts("top", "same-but-other", 1.0),
            ]
        )
        model.router.exploration = 0.0
        assert who(model.invoke("q")) == "top"
        assert who(model.invoke("q", model="same")) == "us"

    def test_an_unknown_one_is_passed_on(self, pool, asked):
        model = pool()
        model.invoke("q", model="other")
        assert asked(model, "best")[0].kwargs["model"] == "other"


class TestUnableToBind:
    """A candidate that cannot take the tools or the schema is passed over."""

    def chat(self, scripted_candidate, **settings):
        model = MixLLMChatModel(
            candidates=[
                unbending("best", 0.95),
                scripted_candidate("second", quality=0.4),
            ],
            max_retries=0,
            **settings,
        )
        model.router.exploration = 0.0
        return model

    async def test_the_next_one_answers_in_every_mode(
        self, scripted_candidate, load_of
    ):
        model = self.chat(scripted_candidate)
        tools = model.bind_tools([add])
        assert who(tools.invoke("2 and 3")) == "second"
        assert who(await tools.ainvoke("2 and 3")) == "second"
        assert who(list(tools.stream("2 and 3"))[-1]) == "second"
        assert who([chunk async for chunk in tools.astream("2 and 3")][-1]) == "second"
        schema = model.with_structured_output(Sum)
        assert schema.invoke("5 apples") == Sum(total=5)
        assert await schema.ainvoke("5 apples") == Sum(total=5)
        assert load_of(model) == 0

    def test_it_is_not_left_alone_for_what_it_can_do(self, scripted_candidate):
        model = self.chat(scripted_candidate)
        answer = model.bind_tools([add]).invoke("2 and 3")
        (attempt,) = answer.response_metadata["mixllm"]["attempts"]
        assert (attempt["candidate"], attempt["error"]) == ("best", "TypeError")
        assert who(model.invoke("q")) == "best"

    def test_if_none_can_the_error_is_raised_as_it_is(self, load_of, recorder):
        model = MixLLMChatModel(
            candidates=[unbending("a", 0.9), unbending("b", 0.5)],
        )
        with pytest.raises(TypeError, match="cannot express these tools"):
            model.bind_tools([add]).invoke("q", {"callbacks": [recorder]})
        assert recorder.named("MixLLM")[0]["ended"] == "TypeError"
        assert load_of(model) == 0
