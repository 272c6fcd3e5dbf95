"""No key of a candidate is ever shown, traced or stored."""

import pytest
from langchain_core.load import dumpd, dumps
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
from mixllm_integrations.testing import ScriptedChatModel

KEY = "sk-this-must-never-be-seen"


class Careless(ScriptedChatModel):
    """Holds its key as a plain string, as many classes do."""

    openai_api_key: str


@pytest.fixture
def model():
    return MixLLMChatModel(
        candidates=[
            CandidateModel(
                model=Careless(openai_api_key=KEY, answers=["Hello."]),
                name="careless",
                input_cost_per_million_tokens=1,
                output_cost_per_million_tokens=1,
            )
        ],
        api_key=KEY,
    )


def test_the_fake_really_shows_its_key():
    assert KEY in repr(Careless(openai_api_key=KEY))
    assert KEY in dumps(Careless(openai_api_key=KEY))


def test_nothing_that_describes_the_model_shows_a_key(model):
    chain = ChatPromptTemplate.from_template("{q}") | model.bind_tools([])
    for shown in (
        repr(model),
        str(model),
        repr(model.candidates),
        repr(model.seat("careless")),
        str(dumpd(model)),
        dumps(model),
        dumps(model, pretty=True),
        dumps(chain),
        repr(chain),
        repr(model.asdict()),
        repr(model.model_dump()),
        model.model_dump_json(),
        repr(model._get_ls_params()),
        repr(model._get_invocation_params()),
        repr(model.dispatcher),
        repr(model.with_structured_output({"title": "A", "type": "object"})),
    ):
        assert KEY not in shown


def test_the_description_names_the_candidates(model):
    assert repr(model) == (
        "MixLLMChatModel(candidates=['careless'], willingness_to_pay=0.01)"
    )


def test_no_key_is_in_the_trace_of_the_chain_run(model):
    collector = RunCollectorCallbackHandler()
    model.invoke("q", {"callbacks": [collector]})
    (run,) = collector.traced_runs
    assert run.name == "MixLLM"
    assert KEY not in repr((run.serialized, run.inputs, run.outputs, run.extra))
    (child,) = run.child_runs
    assert child.run_type == "llm"


def test_an_error_at_construction_shows_no_key():
    with pytest.raises(ValueError, match="price of model") as caught:
        MixLLMChatModel(candidates=[Careless(openai_api_key=KEY)])
    assert KEY not in str(caught.value)


def test_two_pools_have_different_cache_keys(model):
    other = MixLLMChatModel(candidates=model.candidates)
    assert model._get_llm_string() != other._get_llm_string()
