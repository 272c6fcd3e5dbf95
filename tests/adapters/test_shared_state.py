"""`shared_state` of the chat model and of the LLM: where workers meet."""

import pickle

import pytest
from langchain_core.load import dumps

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.llama_index import CandidateLLM, MixLLM
from mixllm_integrations.store.live import MemoryState
from mixllm_integrations.testing import ScriptedChatModel
from mixllm_integrations.testing.llama_index import ScriptedLLM

pytestmark = pytest.mark.network
SECRET = "redis://:geheim@127.0.0.1:1/0"
PRICES = {"input_cost_per_million_tokens": 0.1, "output_cost_per_million_tokens": 0.4}


def chat_model(shared_state, **settings):
    model = ScriptedChatModel(model="small", answers=["4"])
    candidate = CandidateModel(model=model, **PRICES)
    return MixLLMChatModel(
        candidates=[candidate], shared_state=shared_state, **settings
    )


def llm(shared_state):
    candidate = CandidateLLM(llm=ScriptedLLM(model="small", answers=["4"]), **PRICES)
    return MixLLM([candidate], shared_state=shared_state)


def dispatcher_of(model):
    return model.dispatcher


@pytest.fixture(params=[chat_model, llm], ids=["langchain", "llama_index"])
def make(request):
    return request.param


def ask(model):
    return model.invoke("2 + 2?") if hasattr(model, "invoke") else model.complete("2?")


def test_without_one_a_model_is_on_its_own(make):
    assert dispatcher_of(make(None)).live is None


def test_two_models_that_meet_know_of_each_others_cooldowns(make):
    state = MemoryState()
    one, two = make(state), make(state)
    dispatcher_of(one).cooldown.start("small")
    dispatcher_of(one).live.look()
    dispatcher_of(two).live.look()
    assert "small" in dispatcher_of(two).cooldown.due()


def test_a_model_answers_where_nobody_is_to_be_met(make, caplog):
    model = make(SECRET)
    assert "is away" in caplog.text
    assert "4" in str(ask(model))
    assert "geheim" not in caplog.text + repr(model) + str(model)
    dispatcher_of(model).live.close()


def test_what_cannot_be_a_shared_state_is_refused_at_once(make):
    with pytest.raises(ConfigurationError, match="shared_state must be"):
        make(7)
    with pytest.raises(ConfigurationError, match="redis://user"):
        make("redsi://host")


def test_its_password_is_in_no_dump():
    model = chat_model(SECRET)
    assert "geheim" not in dumps(model) + model.model_dump_json()
    assert "geheim" not in str(llm(SECRET).to_dict()) + str(llm(SECRET).model_dump())


def test_what_comes_out_of_a_pickle_meets_others_by_the_url(make):
    copied = pickle.loads(pickle.dumps(make(SECRET)))  # noqa: S301
    assert repr(dispatcher_of(copied).live._state).startswith("RedisState(")


def test_a_copy_may_meet_others_elsewhere():
    model, state = chat_model(None), MemoryState()
    copied = model.model_copy(update={"shared_state": state})
    assert model.dispatcher.live is None
    assert copied.dispatcher.live._state is state
