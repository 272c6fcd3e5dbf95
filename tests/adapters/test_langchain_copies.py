"""A routed chat model is copied, by itself and inside others, and goes elsewhere."""

import copy
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel, InstanceOf

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.store import open_store
from mixllm_integrations.testing import ScriptedChatModel

PROMPT = ChatPromptTemplate.from_template("{q}")
SCHEMA = {"title": "f", "description": "f", "type": "object", "properties": {}}
KEY = "sk-this-must-never-be-seen"
PRICES = {
    "input_cost_per_million_tokens": 1.0,
    "output_cost_per_million_tokens": 2.0,
}


class Plain(FakeListChatModel):
    """A chat model that a pickle can hold, with a setting."""

    temperature: float | None = None


class Ears(BaseCallbackHandler):
    """Counts what it hears."""

    def __init__(self):
        self.ended = 0

    def on_chain_end(self, *args, **kwargs):
        self.ended += 1


class Connected(ScriptedChatModel):
    """Holds what belongs to its process, as the clients of providers do."""

    lock: object = None
    api_key: str = KEY


def read(data):
    return pickle.loads(data)  # noqa: S301 - our own


def pickled(model):
    return read(pickle.dumps(model))


def two_candidates(kind):
    return [
        CandidateModel(
            model=kind(responses=[f"From the {name}."]),
            name=name,
            prior_quality=quality,
            **PRICES,
        )
        for name, quality in (("second", 0.5), ("best", 0.9))
    ]


def best_and_second(**settings):
    model = MixLLMChatModel(candidates=two_candidates(Plain), **settings)
    model.router.exploration = 0.0
    return model


def taught(model, question="q"):
    """Let a model hear that its best candidate is no good."""
    for _ in range(30):
        answer = model.invoke(question)
        good = answer.content == "From the second."
        model.record_feedback(answer, float(good))
    return model


# --- copies share -------------------------------------------------------------


class TestCopies:
    """Inside one process all copies are the same model, set otherwise."""

    @pytest.mark.parametrize(
        "copied",
        [
            copy.copy,
            copy.deepcopy,
            lambda model: model.model_copy(),
            lambda model: model.model_copy(deep=True),
            lambda model: copy.deepcopy({"model": model})["model"],
            lambda model: copy.deepcopy(copy.deepcopy(model)),
        ],
    )
    def test_a_copy_shares_models_and_learning_and_has_settings_of_its_own(
        self, pool, copied
    ):
        model = pool()
        other = copied(model)
        assert other is not model
        assert other.router is model.router
        assert other.dispatcher is model.dispatcher
        assert other.seat("best").model is model.seat("best").model
        assert model.record_feedback(other.invoke("q"), 1.0)
        other.temperature = 0.25
        assert (model.temperature, other.temperature) == (None, 0.25)

    def test_a_copy_needs_no_candidate_that_can_be_copied(self):
        tied = CandidateModel(
            model=Connected(lock=threading.RLock()), name="tied", **PRICES
        )
        with pytest.raises(TypeError):
            copy.deepcopy(tied)
        model = MixLLMChatModel(candidates=[tied])
        assert copy.deepcopy(model).invoke("q").content == "You said: q"
        assert model.model_copy(deep=True).candidates == model.candidates

    def test_a_deep_copy_of_what_holds_it_shares_it_too(self, pool):
        class Holder(BaseModel):
            model: InstanceOf[MixLLMChatModel]

        holder = Holder(model=pool())
        other = holder.model_copy(deep=True)
        assert other.model is not holder.model
        assert other.model.router is holder.model.router

    @pytest.mark.parametrize(
        "wrapped",
        [
            lambda model: PROMPT | model | StrOutputParser(),
            lambda model: PROMPT | model.bind(stop=["x"]),
            lambda model: PROMPT | model.with_config(tags=["t"]),
            lambda model: PROMPT | model.with_retry(),
            lambda model: PROMPT | model.with_fallbacks([model]),
            lambda model: (
                PROMPT | model.configurable_fields(max_tokens=ConfigurableField(id="n"))
            ),
            lambda model: PROMPT | model.bind_tools([SCHEMA]),
            lambda model: PROMPT | model.with_structured_output(SCHEMA),
        ],
        ids=["bare", "bind", "config", "retry", "fallbacks", "fields", "tools", "json"],
    )
    def test_a_deep_copy_of_a_chain_goes_on_with_its_router(self, pool, wrapped):
        model = pool()
        chain = copy.deepcopy(wrapped(model))
        chain.invoke({"q": "Hello."})
        assert len(model.router._ledger) == 1

    @pytest.mark.parametrize(
        "bound",
        [
            lambda model: model.bind_tools([SCHEMA]),
            lambda model: model.with_structured_output(SCHEMA),
        ],
        ids=["tools", "json"],
    )
    def test_a_binding_that_was_used_needs_no_candidate_that_can_be_copied(self, bound):
        tied = CandidateModel(
            model=Connected(lock=threading.RLock()), name="tied", **PRICES
        )
        used = bound(MixLLMChatModel(candidates=[tied]))
        used.invoke("Hello.")
        copy.deepcopy(used).invoke("Hello.")
        with pytest.raises(ConfigurationError, match="'tied'"):
            pickle.dumps(used)


# --- pickles ------------------------------------------------------------------


class TestPickles:
    """What comes out of a pickle is a model of its own, and the same one."""

    def test_it_answers_and_has_the_same_settings(self):
        model = best_and_second(
            temperature=0.3, willingness_to_pay=0.5, timeout=9.0, tags=["t"]
        )
        model.invoke("q")
        other = pickled(model)
        assert other.invoke("q").content == "From the best."
        for name in ("temperature", "willingness_to_pay", "timeout", "tags", "profile"):
            assert getattr(other, name) == getattr(model, name)
        assert other.seat("best").model.temperature == 0.3
        assert repr(other) == repr(model)

    def test_what_was_learned_goes_along_and_then_each_learns_by_itself(self):
        model = best_and_second()
        early, answer = pickled(model), model.invoke("q")
        late = pickled(taught(model))
        assert late.invoke("q").content == "From the second."
        assert early.invoke("q").content == "From the best."
        assert late.router is not model.router
        assert late.dispatcher is not model.dispatcher
        for each in (model, late):
            assert each.record_feedback(answer, 1.0)

    def test_nobody_is_cooling_down_for_it(self, monkeypatch):
        model = best_and_second()
        with monkeypatch.context() as broken:
            broken.setattr(Plain, "_call", _fail)
            with pytest.raises(ExceptionGroup):
                model.invoke("q")
        assert pickled(model).invoke("q").response_metadata["mixllm"]["attempts"] == []

    def test_what_was_pickled_together_stays_together(self):
        model = best_and_second()
        router, one, two = pickled((model.router, model, model.model_copy()))
        assert one.router is two.router is router is not model.router
        assert one.dispatcher is two.dispatcher

    def test_only_its_fields_are_pickled(self):
        model = best_and_second()
        model.invoke("q")
        state = model.__getstate__()["__dict__"]
        assert state.keys() <= type(model).model_fields.keys()
        assert "_dispatcher" in model.__dict__

    def test_a_chain_can_be_pickled(self):
        chain = pickled(PROMPT | best_and_second() | StrOutputParser())
        assert chain.invoke({"q": "Hello."}) == "From the best."

    def test_callbacks_and_functions_with_a_name_go_as_they_are(self):
        model = best_and_second(callbacks=[Ears()], query_from=_first)
        other = pickled(model)
        other.invoke("q")
        assert other.query_from is _first
        assert other.callbacks[0].ended == 1
        assert model.callbacks[0].ended == 0

    def test_a_store_given_by_url_is_opened_anew(self, tmp_path):
        url = f"sqlite:///{tmp_path.as_posix()}/events.db"
        model = best_and_second(store=url)
        other = pickled(model)
        decisions = {
            each.invoke("q").response_metadata["mixllm"]["decision_id"]
            for each in (model, other)
        }
        for each in (model, other):
            assert each.dispatcher.journal.flush()
        with open_store(url) as store:
            assert {event.decision_id for event in store.events()} == decisions
        assert len(decisions) == 2

    def test_it_works_in_another_process(self):
        model = taught(best_and_second())
        spawn = multiprocessing.get_context("spawn")
        model.candidates = two_candidates(FakeListChatModel)  # the child finds it
        with ProcessPoolExecutor(1, mp_context=spawn) as child:
            answer = child.submit(model.invoke, "q").result()
        assert answer.content == "From the second."
        assert answer.response_metadata["mixllm"]["candidate"] == "second"


def _fail(self, *args, **kwargs):
    raise RuntimeError("down")


def _first(messages):
    return messages[0].text


# --- what cannot be pickled ---------------------------------------------------


class TestRefusals:
    """What belongs to this process is named, with what to do instead."""

    def test_a_candidate_is_named_and_its_key_is_not(self):
        tied = Connected(lock=threading.RLock(), model="tied-2024")
        free = Plain(responses=["a"])
        model = MixLLMChatModel(
            candidates=[
                CandidateModel(model=free, name="free", **PRICES),
                CandidateModel(model=tied, name="tied", **PRICES),
            ]
        )
        with pytest.raises(ConfigurationError) as caught:
            pickle.dumps(model)
        told = str(caught.value)
        for word in ("'tied'", "Connected", "RLock", "router.save", "Router.load"):
            assert word in told
        assert KEY not in told

    def test_a_real_client_is_such_a_candidate(self):
        openai = pytest.importorskip("langchain_openai")
        model = MixLLMChatModel(
            candidates=[openai.ChatOpenAI(model="gpt-4o-mini", api_key=KEY)]
        )
        with pytest.raises(ConfigurationError, match="'gpt-4o-mini'") as caught:
            pickle.dumps(model.bind(stop=["x"]))
        assert KEY not in str(caught.value)

    def test_what_the_message_advises_works(self, tmp_path):
        model = taught(best_and_second())
        model.router.save(tmp_path / "router")
        router = type(model.router).load(tmp_path / "router")
        again = best_and_second(router=router)
        assert again.invoke("q").content == "From the second."

    def test_an_opened_store_is_refused(self, tmp_path):
        with open_store(f"sqlite:///{tmp_path.as_posix()}/events.db") as store:
            model = best_and_second(store=store)
            with pytest.raises(ConfigurationError, match=r"SQLStore.*URL"):
                pickle.dumps(model)
            assert copy.deepcopy(model).store is store
            assert pickled(model.model_copy(update={"store": None})).store is None

    def test_a_setting_is_named(self):
        limiter = InMemoryRateLimiter()
        model = best_and_second(rate_limiter=limiter)
        with pytest.raises(ConfigurationError, match="'rate_limiter'"):
            pickle.dumps(model)
        other = pickled(model.model_copy(update={"rate_limiter": None}))
        other.rate_limiter = limiter
        assert other.invoke("q").content == "From the best."

    def test_a_function_without_a_name_is_left_to_those_who_can_pickle_it(self):
        cloudpickle = pytest.importorskip("cloudpickle")
        model = best_and_second(query_from=lambda messages: "q")
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pickle.dumps(model)
        other = read(cloudpickle.dumps(model))
        assert other.invoke("q").content == "From the best."
