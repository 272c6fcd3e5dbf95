"""Both adapters learn from what other processes have logged, and tell them."""

import asyncio
import json
import os
import subprocess
import sys
import uuid

import pytest
import sqlalchemy as sa

from mixllm_integrations.core.errors import UnknownDecisionError
from mixllm_integrations.store.sql import SQLStore

POSTGRES = os.environ.get("MIXLLM_TEST_POSTGRES")
QUERY = "What is 3 plus 4?"

PRICES = {
    "input_cost_per_million_tokens": 0.1,
    "output_cost_per_million_tokens": 0.4,
}


def langchain_model(url, **given):
    from mixllm_integrations.langchain import CandidateModel, MixLLMChatModel
    from mixllm_integrations.testing import ScriptedChatModel

    candidates = [
        CandidateModel(model=ScriptedChatModel(model=n, answers=["7"] * 9), **PRICES)
        for n in ("small", "large")
    ]
    return MixLLMChatModel(candidates=candidates, store=url, **given)


def llama_index_model(url, **given):
    from mixllm_integrations.llama_index import CandidateLLM, MixLLM
    from mixllm_integrations.testing.llama_index import ScriptedLLM

    candidates = [
        CandidateLLM(llm=ScriptedLLM(model=n, answers=["7"] * 9), name=n, **PRICES)
        for n in ("small", "large")
    ]
    return MixLLM(candidates, store=url, **given)


def asked(model):
    """Return the id of the decision that answered."""
    if hasattr(model, "invoke"):
        return model.invoke(QUERY).response_metadata["mixllm"]["decision_id"]
    return model.complete(QUERY).additional_kwargs["mixllm"]["decision_id"]


def dispatcher_of(model):
    return model.dispatcher


def quality(model):
    return model.router.predict([QUERY]).quality[0].tolist()


def close(model):
    dispatcher = dispatcher_of(model)
    dispatcher.follower.close()
    dispatcher.journal.close()


MODELS = {"langchain": langchain_model, "llama_index": llama_index_model}

WORKER = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("shared_learning", sys.argv[1])
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
model = shared.MODELS[sys.argv[2]](sys.argv[3])
first, second = shared.asked(model), shared.asked(model)
model.record_feedback(first, 0.0)
print(json.dumps([first, second, shared.quality(model)]))
"""


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.network)]
)
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/log.db"
        return
    if not POSTGRES:
        pytest.skip("MIXLLM_TEST_POSTGRES names no PostgreSQL server")
    schema = f"mixllm_{uuid.uuid4().hex}"
    engine = sa.create_engine(POSTGRES)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    options = {"options": f"-csearch_path={schema}"}
    yield (
        sa.make_url(POSTGRES)
        .update_query_dict(options)
        .render_as_string(hide_password=False)
    )
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture(params=list(MODELS))
def adapter(request):
    return request.param


def another_process(adapter, url):
    done = subprocess.run(
        [sys.executable, "-c", WORKER, __file__, adapter, url],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def test_what_another_process_was_told_is_known_here_and_counts_once(adapter, url):
    model = MODELS[adapter](url)
    asked(model)  # from here on it follows
    before = quality(model)
    judged, unjudged, _ = another_process(adapter, url)
    assert not model.record_feedback(judged, 0.0)
    assert model.record_feedback(unjudged, 0.0)
    assert not model.record_feedback(unjudged, 0.0)
    assert quality(model) != pytest.approx(before, abs=1e-3)
    close(model)

    anew = MODELS[adapter](url)  # a restart
    dispatcher_of(anew).follower.catch_up()
    assert quality(anew) == pytest.approx(quality(model), abs=1e-6)
    assert not anew.record_feedback(unjudged, 0.0)
    with SQLStore(url) as log:
        assert sum(e.kind == "feedback" for e in log.events()) == 2
    close(anew)


def test_feedback_may_be_told_without_blocking_and_to_another_worker(adapter, tmp_path):
    url = f"sqlite:///{tmp_path}/log.db"
    one, other = MODELS[adapter](url), MODELS[adapter](url)
    decided = asked(one)
    dispatcher_of(one).journal.flush()
    assert asyncio.run(other.arecord_feedback(decided, 0.0))
    dispatcher_of(one).follower.catch_up()
    assert quality(one) == pytest.approx(quality(other), abs=1e-6)
    with pytest.raises(UnknownDecisionError):
        asyncio.run(other.arecord_feedback("d" * 32, 0.0))
    close(one)
    close(other)


def test_learning_from_the_store_can_be_turned_off(adapter, tmp_path):
    url = f"sqlite:///{tmp_path}/log.db"
    model = MODELS[adapter](url, learn_from_store=False)
    assert dispatcher_of(model).follower is None
    asked(model)
    dispatcher_of(model).journal.close()
    with SQLStore(url) as log:
        (decision,) = (e for e in log.events() if e.kind == "decision")
    assert "handed_over" not in decision.payload


def test_it_may_be_turned_off_later(adapter, tmp_path):
    model = MODELS[adapter](f"sqlite:///{tmp_path}/log.db")
    follower = model.dispatcher.follower
    model.learn_from_store = False
    assert model.dispatcher.follower is None
    if adapter == "langchain":  # where a copy may have settings of its own
        assert model.model_copy(update={"learn_from_store": True}).dispatcher.follower
    follower.close()


def test_a_pickled_llama_index_model_keeps_its_choice(tmp_path):
    model = llama_index_model(f"sqlite:///{tmp_path}/log.db", learn_from_store=False)
    assert model.__getstate__()["learn_from_store"] is False
