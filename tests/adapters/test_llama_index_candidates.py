"""Names, prices and abilities of candidates; secrets stay where they are."""

import json

import pytest
from llama_index.core.base.llms.types import LLMMetadata, MessageRole
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms import MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM

from mixllm_integrations import Candidate, ConfigurationError, Router
from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.testing import ScriptedLLM

FREE = {"input_cost_per_million_tokens": 0.0, "output_cost_per_million_tokens": 0.0}


class OpenAILike(ScriptedLLM):
    model: str = "gpt-4o-mini"
    api_key: str = Field(default="sk-hunter2")

    @classmethod
    def class_name(cls):
        return "openai_llm"


class TestPrices:
    def test_those_of_a_bare_llm_come_from_the_price_list(self):
        llm = MixLLM([OpenAILike()])
        (entry,) = llm.candidates
        assert entry.name == "gpt-4o-mini"
        # the list price of gpt-4o-mini since its release
        assert entry.input_cost_per_million_tokens == pytest.approx(0.15)
        assert entry.output_cost_per_million_tokens == pytest.approx(0.60)

    def test_one_that_is_given_wins_over_the_list(self):
        entry = CandidateLLM(llm=OpenAILike(), input_cost_per_million_tokens=0.0)
        assert entry.candidate.input_cost_per_million_tokens == 0.0
        assert entry.candidate.output_cost_per_million_tokens == pytest.approx(0.60)

    def test_an_unknown_one_is_an_error_that_says_what_to_pass(self):
        with pytest.raises(ConfigurationError) as caught:
            MixLLM([ScriptedLLM(model="my-own-model")])
        for named in (
            "'my-own-model'",
            "CandidateLLM",
            "input_cost_per_million_tokens",
        ):
            assert named in str(caught.value)

    def test_a_negative_one_is_an_error(self):
        with pytest.raises(ConfigurationError, match="-1"):
            MixLLM([CandidateLLM(llm=ScriptedLLM(), **{**FREE, **_negative()})])

    @pytest.mark.parametrize(
        ("class_name", "model"),
        [
            ("Anthropic_LLM", "claude-3-5-haiku-latest"),
            ("openai_responses_llm", "gpt-4.1"),
            ("Gemini_LLM", "gemini-2.0-flash"),
            ("something of its own", "gpt-4o"),
        ],
    )
    def test_the_provider_is_told_by_the_class_name(self, class_name, model):
        kind = type(
            "Other", (ScriptedLLM,), {"class_name": classmethod(lambda _: class_name)}
        )
        assert CandidateLLM(llm=kind(model=model)).candidate.name == model


def _negative():
    return {"output_cost_per_million_tokens": -1.0}


class TestAbilities:
    def test_the_window_is_what_the_llm_says(self):
        entry = CandidateLLM(llm=ScriptedLLM(context_window=8_000), **FREE)
        assert entry.candidate.context_window == 8_000

    def test_a_given_window_wins(self):
        entry = CandidateLLM(llm=ScriptedLLM(), context_window=500, **FREE)
        assert entry.candidate.context_window == 500

    def test_the_placeholder_of_llamaindex_is_no_limit(self):
        assert MockLLM().metadata.context_window == 3_900
        assert CandidateLLM(llm=MockLLM(), **FREE).candidate.context_window is None

    def test_tools_are_what_the_llm_says(self):
        can, cannot = (
            CandidateLLM(llm=ScriptedLLM(is_function_calling_model=can), **FREE)
            for can in (True, False)
        )
        assert can.candidate.tools
        assert not cannot.candidate.tools
        assert not CandidateLLM(llm=MockLLM(), **FREE).candidate.tools

    def test_tools_may_be_denied_but_not_invented(self):
        denied = CandidateLLM(llm=ScriptedLLM(), tools=False, **FREE)
        assert not denied.candidate.tools
        with pytest.raises(ConfigurationError, match="tools=True"):
            MixLLM([CandidateLLM(llm=MockLLM(), name="mock", tools=True, **FREE)])

    def test_all_else_reaches_the_router(self):
        given = {
            "vision": False,
            "structured_output": False,
            "prior_quality": 0.25,
            "time_to_first_token_seconds": 0.5,
            "seconds_per_output_token": 0.01,
            "max_concurrency": 3,
        }
        llm = MixLLM([CandidateLLM(llm=ScriptedLLM(), name="one", **FREE, **given)])
        (candidate,) = llm.router.candidates
        assert {name: getattr(candidate, name) for name in given} == given


class TestAGivenRouter:
    """What was not passed comes from its candidate of that name."""

    FACTS = {  # noqa: RUF012
        "context_window": 7_000,
        "vision": False,
        "structured_output": False,
        "prior_quality": 0.25,
        "time_to_first_token_seconds": 0.5,
        "seconds_per_output_token": 0.01,
        "max_concurrency": 3,
    }

    def router(self, **facts):
        return Router([Candidate("a", 3.0, 6.0, **{**self.FACTS, **facts})])

    def after(self, router, **passed):
        llm = MixLLM(
            [CandidateLLM(llm=ScriptedLLM(), name="a", **passed)], router=router
        )
        assert llm.router is router
        return llm

    def test_its_price_is_taken(self):
        router = self.router()
        (before,) = router.candidates
        self.after(router)
        assert router.candidates == (before,)

    def test_its_price_goes_before_the_list_price(self):
        router = Router([Candidate("gpt-4o-mini", 3.0, 6.0)])
        MixLLM([OpenAILike()], router=router)
        (candidate,) = router.candidates
        assert candidate.input_cost_per_million_tokens == 3.0

    def test_a_new_price_leaves_all_else_as_it_was(self):
        router = self.router()
        self.after(router, **FREE)
        assert router.candidates == (Candidate("a", 0.0, 0.0, **self.FACTS),)

    def test_what_is_passed_wins(self):
        passed = {
            "context_window": 9_000,
            "tools": False,
            "vision": True,
            "structured_output": True,
            "prior_quality": 0.75,
            "max_concurrency": 1,
        }
        router = self.router()
        self.after(router, **passed)
        (candidate,) = router.candidates
        assert {name: getattr(candidate, name) for name in passed} == passed
        assert candidate.time_to_first_token_seconds == 0.5

    def test_the_smaller_window_counts(self):
        router = self.router(context_window=200_000)
        self.after(router)  # the scripted LLM says 100,000
        assert router.candidates[0].context_window == 100_000

    def test_tools_that_it_denies_stay_denied(self):
        router = self.router(tools=False)
        llm = self.after(router)
        assert not router.candidates[0].tools
        assert not llm.metadata.is_function_calling_model

    def test_tools_that_the_llm_cannot_call_are_not_taken_from_it(self):
        router = self.router(tools=True)
        MixLLM([CandidateLLM(llm=MockLLM(), name="a")], router=router)
        assert not router.candidates[0].tools

    def test_the_candidates_show_what_was_taken(self):
        (entry,) = self.after(self.router()).candidates
        assert entry.candidate.prior_quality == 0.25
        assert entry.max_concurrency == 3


class TestSettings:
    def entry(self):
        return CandidateLLM(llm=ScriptedLLM(), name="a", **FREE)

    def test_an_unknown_one_is_an_error_that_names_those_there_are(self):
        with pytest.raises(ConfigurationError, match="'temprature'") as caught:
            MixLLM([self.entry()], temprature=1)
        for allowed in ("system_prompt", "willingness_to_pay", "candidates"):
            assert allowed in str(caught.value)

    def test_the_first_unknown_one_is_named_even_beside_known_ones(self):
        with pytest.raises(ConfigurationError, match="'foo'"):
            MixLLM([self.entry()], system_prompt="Be brief.", foo=3)

    @pytest.mark.parametrize("name", sorted(FunctionCallingLLM.model_fields))
    def test_every_field_of_a_function_calling_llm_is_taken(self, name):
        default = FunctionCallingLLM.model_fields[name].get_default(
            call_default_factory=True
        )
        MixLLM([self.entry()], **{name: default})

    def test_a_field_of_a_subclass_is_taken(self):
        class Named(MixLLM):
            label: str = ""

        assert Named([self.entry()], label="mine").label == "mine"


class TestMetadata:
    def of(self, *llms):
        entries = [
            CandidateLLM(llm=one, name=f"n{i}", **FREE) for i, one in enumerate(llms)
        ]
        return MixLLM(entries).metadata

    def test_it_holds_the_minima(self):
        found = self.of(
            ScriptedLLM(context_window=8_000, num_output=500),
            ScriptedLLM(context_window=4_000, num_output=900),
        )
        assert (found.context_window, found.num_output) == (4_000, 500)
        assert found.model_name == "MixLLM"

    def test_an_output_without_limit_is_no_minimum(self):
        assert self.of(ScriptedLLM(num_output=-1)).num_output == -1
        both = self.of(ScriptedLLM(num_output=-1), ScriptedLLM(num_output=700))
        assert both.num_output == 700

    def test_a_chat_model_is_one_if_all_are(self):
        assert self.of(ScriptedLLM(), ScriptedLLM()).is_chat_model
        assert not self.of(
            ScriptedLLM(), ScriptedLLM(is_chat_model=False)
        ).is_chat_model

    def test_it_calls_functions_if_any_candidate_does(self):
        plain = ScriptedLLM(is_function_calling_model=False)
        assert self.of(ScriptedLLM(), plain).is_function_calling_model
        assert not self.of(plain).is_function_calling_model

    def test_a_declared_window_counts(self):
        entry = CandidateLLM(llm=MockLLM(), name="m", context_window=50_000, **FREE)
        assert MixLLM([entry]).metadata.context_window == 50_000

    def test_the_role_of_the_system_prompt_is_the_common_one(self):
        class Chatbot(ScriptedLLM):
            @property
            def metadata(self):
                return LLMMetadata(system_role=MessageRole.CHATBOT, model_name="c")

        assert self.of(Chatbot()).system_role is MessageRole.CHATBOT
        assert self.of(Chatbot(), ScriptedLLM()).system_role is MessageRole.SYSTEM


class TestSecrets:
    def llm(self):
        return MixLLM(
            [OpenAILike(), CandidateLLM(llm=OpenAILike(), name="other")],
            system_prompt="Be brief.",
            willingness_to_pay=0.25,
        )

    @pytest.mark.parametrize(
        "shown",
        [
            repr,
            str,
            lambda llm: repr(llm.candidates),
            lambda llm: json.dumps(llm.to_dict()),
            lambda llm: llm.to_json(),
            lambda llm: json.dumps(llm.to_payload()),
            lambda llm: llm.model_dump_json(),
        ],
    )
    def test_no_key_is_shown(self, shown):
        text = shown(self.llm())
        assert "hunter2" not in text
        assert "gpt-4o-mini" in text

    def test_it_names_itself(self):
        assert self.llm().class_name() == "MixLLM"
        assert self.llm().to_dict()["class_name"] == "MixLLM"
        assert self.llm().to_payload()["candidates"] == ["gpt-4o-mini", "other"]

    def test_from_dict_makes_it_again_given_the_llms(self):
        llm = self.llm()
        again = MixLLM.from_dict(llm.to_dict(), candidates=llm.candidates)
        assert again.to_dict() == llm.to_dict()
        assert again.system_prompt == "Be brief."
        assert again.willingness_to_pay == 0.25

    def test_from_dict_without_them_says_what_is_missing(self):
        with pytest.raises(ConfigurationError, match="LlamaIndex LLM"):
            MixLLM.from_dict(self.llm().to_dict())
