"""A copied or pickled router is a router of its own, and the same one."""

import copy
import multiprocessing
import pickle
import pickletools
import shutil
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import joblib
import numpy as np
import pytest
from pydantic import BaseModel, InstanceOf

from mixllm_integrations.core import persistence
from mixllm_integrations.core.encoder import StaticEncoder
from mixllm_integrations.core.errors import (
    ConfigurationError,
    StateFormatError,
    UnknownDecisionError,
)
from mixllm_integrations.core.prior import shipped_prior
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate, Outcome
from mixllm_integrations.core.wordpieces import shipped_folder
from mixllm_integrations.testing import ManualClock

QUERY = "Explain contract about court for tenant case 7?"
QUERIES = ["", QUERY, "Explain integral of prime?", "recipe with butter", "東京 🤖"]
ARRAYS = ("quality", "output_tokens", "cost", "uncertainty")
CANDIDATES = [
    Candidate("small", 0.1, 0.4, prior_quality=0.5),
    Candidate("large", 5.0, 15.0, prior_quality=0.9),
]


def read(data):
    return pickle.loads(data)  # noqa: S301 - our own


def pickled(router):
    return read(pickle.dumps(router))


COPIES = pytest.mark.parametrize("copied", [pickled, copy.deepcopy, copy.copy])


def knows(router):
    """Return all that is predicted and decided, and what was set."""
    found = router.predict(QUERIES)
    decided = router.route_batch(QUERIES, charge_load=False)
    return {
        "candidates": router.candidates,
        **{name: getattr(found, name).tolist() for name in ARRAYS},
        "chosen": [(d.candidate, dict(d.scores), d.explored) for d in decided],
        "settings": router._settings,
        "policy": router._policy,
        "most": router.max_cost_per_query,
        "tolerance": router.waiting_tolerance_seconds,
    }


def learn(router, few, *, reward=0.9):
    for query in few.queries[:5]:
        decision = router.route(query, among=["calculator"])
        router.record_outcome(decision.id, Outcome(3, 77))
        router.record_feedback(decision.id, reward)


@pytest.fixture
def manual():
    """A clock that has a name, so that a pickle can hold it."""
    return ManualClock(100.0)


# --- the same router ----------------------------------------------------------


@COPIES
@pytest.mark.parametrize("kind", ["ridge", "ensemble"])
def test_a_copy_predicts_and_decides_the_same_bit_for_bit(
    few, fitted, manual, copied, kind
):
    router = fitted(predictor=kind, exploration=0.3, forgetting=0.98, clock=manual)
    learn(router, few)
    router.add_candidate(Candidate("newcomer", 2.0, 6.0, prior_quality=0.5))
    router.remove_candidate("lawyer")
    assert knows(copied(router)) == knows(router)
    other = copied(router)
    for each in (router, other):
        learn(each, few, reward=0.2)
        each.add_candidate(few.candidates[1])
    assert knows(other) == knows(router)


@COPIES
def test_a_copy_has_the_same_settings(manual, copied):
    router = Router(
        CANDIDATES,
        predictor="knn",
        willingness_to_pay=0.123,
        exploration=0.5,
        exploration_form="leverage",
        waiting_weight=0.7,
        waiting_tolerance_seconds=12.0,
        max_cost_per_query=0.5,
        n_domains=7,
        l2=3.0,
        forgetting=0.5,
        decision_capacity=99,
        seed=11,
        clock=manual,
    )
    assert knows(copied(router)) == knows(router)


@COPIES
def test_a_calibrated_willingness_to_pay_goes_along(few, fitted, manual, copied):
    router = fitted(clock=manual)
    found = router.calibrate(few.records(), quality_target=0.9)
    assert copied(router).willingness_to_pay == found.willingness_to_pay != 0.01


@COPIES
def test_a_router_without_candidates_can_be_copied(manual, copied):
    router = Router(CANDIDATES, clock=manual)
    for candidate in CANDIDATES:
        router.remove_candidate(candidate.name)
    assert copied(router).candidates == ()


@COPIES
def test_a_subclass_stays_what_it_is(manual, copied):
    assert type(copied(Sub(CANDIDATES, clock=manual))) is Sub


class Sub(Router):
    pass


def test_what_is_copied_twice_at_once_is_one_copy(manual):
    router = Router(CANDIDATES, clock=manual)
    for copied in (copy.deepcopy, pickled):
        one, two = copied([router, router])
        assert one is two
        assert one is not router


def test_joblib_keeps_a_router(few, fitted, manual, tmp_path):
    router = fitted(clock=manual)
    joblib.dump(router, tmp_path / "router.joblib")
    assert knows(joblib.load(tmp_path / "router.joblib")) == knows(router)


# --- a router of its own ------------------------------------------------------


@COPIES
def test_what_one_learns_the_other_does_not(few, fitted, manual, copied):
    router = fitted(clock=manual)
    before = knows(router)
    other = copied(router)
    learn(other, few)
    other.fit(few.records("lawyer", "all-round"))
    other.remove_candidate("calculator")
    other.willingness_to_pay = 7.0
    other.max_cost_per_query = 1.0
    assert knows(router) == before
    assert knows(other) != before
    settled = knows(other)
    learn(router, few)
    router.fit(few.records())
    router.add_candidate(CANDIDATES[0])
    assert knows(other) == settled


@COPIES
def test_a_copy_does_not_wait_for_the_lock_of_the_other(manual, copied):
    router = Router(CANDIDATES, clock=manual)
    other = copied(router)
    found = []
    with router._lock, router._fitting:
        thread = threading.Thread(target=lambda: found.append(other.route(QUERY)))
        thread.start()
        thread.join(10.0)
    assert found


def test_a_deep_copy_of_a_pydantic_model_has_a_router_of_its_own(manual):
    class Holder(BaseModel):
        router: InstanceOf[Router]

    holder = Holder(router=Router(CANDIDATES, clock=manual))
    other = holder.model_copy(deep=True).router
    other.willingness_to_pay = 7.0
    assert holder.router.willingness_to_pay == 0.01
    assert holder.model_copy().router is holder.router


def test_a_router_can_be_copied_while_it_learns(few, fitted, manual):
    router = fitted(clock=manual)
    stop = threading.Event()

    def go_on():
        while not stop.is_set():
            learn(router, few)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        for copied in (pickled, copy.deepcopy) * 3:
            assert np.isfinite(copied(router).predict(QUERIES).quality).all()
    finally:
        stop.set()
        thread.join()


# --- pending decisions and load -----------------------------------------------


@COPIES
def test_a_pending_decision_goes_along_and_each_copy_is_told_by_itself(manual, copied):
    router = Router(CANDIDATES, clock=manual)
    first, second = router.route(QUERY), router.route(QUERY)
    router.record_feedback(first.id, 1.0)
    other = copied(router)
    assert other.record_feedback(first.id, 0.0) is False
    assert other.record_feedback(second.id, 0.0) is True
    assert router.record_feedback(second.id, 0.0) is True
    assert knows(other) == knows(router)
    later = other.route(QUERY)
    with pytest.raises(UnknownDecisionError):
        router.record_feedback(later.id, 1.0)


@COPIES
def test_a_pending_decision_keeps_its_age(manual, copied):
    router = Router(CANDIDATES, decision_max_age_seconds=100.0, clock=manual)
    decision = router.route(QUERY)
    manual.advance(60)
    other = copied(router)
    other._clock.advance(39)
    assert decision.id in other._ledger
    other._clock.advance(2)
    assert decision.id not in other._ledger


@COPIES
def test_calls_under_way_stay_behind(manual, copied):
    router = Router(CANDIDATES, clock=manual)
    decision = router.route(QUERY)
    other = copied(router)
    assert router._waiting.in_flight(decision.candidate) == 1
    assert other._waiting.in_flight(decision.candidate) == 0
    other.record_outcome(decision.id, Outcome(5, 10))
    assert other._waiting.in_flight(decision.candidate) == 0
    assert router._waiting.in_flight(decision.candidate) == 1


# --- clock, encoder, prior ----------------------------------------------------


def test_a_copy_goes_by_the_same_clock(manual):
    for clock in (manual, time.monotonic, lambda: 3.0):
        router = Router(CANDIDATES, clock=clock)
        assert copy.deepcopy(router)._clock is clock
        assert copy.copy(router)._clock is clock


def test_a_pickle_takes_its_clock_along(manual):
    other, clock = pickled((Router(CANDIDATES, clock=manual), manual))
    assert clock.now == 100.0
    assert clock is not manual
    for part in (other, other._ledger, other._waiting):
        assert part._clock is clock
    assert pickled(Router(CANDIDATES))._clock is time.monotonic


def test_the_shipped_encoder_and_prior_go_by_name():
    data = pickle.dumps(Router(CANDIDATES))
    assert len(data) < 50_000
    other = read(data)
    assert other.encoder is StaticEncoder.load()
    assert other._knowledge.prior is shipped_prior()


def test_nothing_in_a_pickle_but_bytes_and_names_and_no_prompt(few, fitted, manual):
    router = fitted(predictor="ensemble", clock=manual)
    learn(router, few)
    router.route("tell zebra9 that the tenant has left")
    data = pickle.dumps(router, protocol=2)  # names in clear
    named = {arg for op, arg, _ in pickletools.genops(data) if op.name == "GLOBAL"}
    assert named == {
        "_codecs encode",  # bytes, in this protocol
        "mixllm_integrations.core.copying _unpickled",
        "mixllm_integrations.core.router Router",
        "mixllm_integrations.testing.clock ManualClock",
    }
    for prompt in (b"zebra9", b"tenant"):
        assert prompt not in pickle.dumps(router)


def test_an_encoder_read_from_a_folder_is_read_again(tmp_path, manual):
    folder = shutil.copytree(shipped_folder(), tmp_path / "encoder")
    router = Router(CANDIDATES, encoder=StaticEncoder.load(folder), clock=manual)
    data = pickle.dumps(router)
    assert len(data) < 50_000
    assert knows(read(data)) == knows(router)
    shutil.rmtree(folder)
    with pytest.raises(ConfigurationError, match="no encoder folder"):
        read(data)


def test_an_encoder_of_ones_own_goes_as_it_is(few, letter_encoder, manual):
    encoder = letter_encoder()
    router = Router(few.candidates, encoder=encoder, predictor="ridge", clock=manual)
    router.fit(few.records())
    other = pickled(router)
    assert other.encoder is not encoder
    assert knows(other) == knows(router)
    assert copy.deepcopy(router).encoder is encoder


def test_an_encoder_made_of_large_arrays_goes_as_it_is(manual):
    shipped = StaticEncoder.load()
    turned = np.ascontiguousarray(shipped._weights[:, ::-1])
    encoder = StaticEncoder(turned, shipped.tokenizer, id="turned", revision="1")
    router = Router(CANDIDATES, encoder=encoder, clock=manual)
    other = pickled(router)
    assert (other.encoder.id, other.encoder.folder) == ("turned", None)
    assert knows(other) == knows(router)


def test_an_encoder_that_cannot_be_pickled_is_named_with_the_remedy(
    letter_encoder, manual
):
    encoder = letter_encoder()
    encoder.client = threading.RLock()
    router = Router(CANDIDATES, encoder=encoder, clock=manual)
    assert knows(copy.deepcopy(router)) == knows(router)
    with pytest.raises(ConfigurationError, match=r"'letters'.*RLock.*Router\.load"):
        pickle.dumps(router)


def test_a_clock_that_cannot_be_pickled_is_named_with_the_remedy():
    clock = ManualClock()
    tied = Tied(clock)
    with pytest.raises(ConfigurationError, match=r"the clock.*lock.*Router\.load"):
        pickle.dumps(Router(CANDIDATES, clock=tied.now))


class Tied:
    def __init__(self, clock):
        self.clock, self.lock = clock, threading.Lock()

    def now(self):
        return self.clock()


def test_a_function_without_a_name_is_left_to_those_who_can_pickle_it():
    cloudpickle = pytest.importorskip("cloudpickle")
    router = Router(CANDIDATES, clock=lambda: 3.0)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(router)
    assert knows(read(cloudpickle.dumps(router))) == knows(router)


@COPIES
def test_a_prior_of_ones_own_goes_along(prior, manual, copied):
    router = Router(CANDIDATES, prior=prior, clock=manual)
    other = copied(router)
    assert other._knowledge.prior.revision == prior.revision
    assert knows(other) == knows(router) != knows(Router(CANDIDATES, clock=manual))


@COPIES
def test_no_prior_stays_none(manual, copied):
    router = Router(CANDIDATES, prior="none", clock=manual)
    assert copied(router)._knowledge.prior is None


# --- other versions, damage ---------------------------------------------------


def test_a_pickle_of_a_newer_format_is_refused(manual, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(persistence, "FORMAT_VERSION", 99)
        data = pickle.dumps(Router(CANDIDATES, clock=manual))
    with pytest.raises(StateFormatError, match=r"'a pickled Router'.*format 99"):
        read(data)


def test_a_pickle_that_was_changed_is_refused(fitted, manual):
    data = bytearray(pickle.dumps(fitted(clock=manual)))
    data[data.index(b'"pending.contexts"') + 3] ^= 1
    with pytest.raises(StateFormatError, match=r"arrays\.safetensors.*sha256"):
        read(bytes(data))


def test_a_pickle_that_lacks_a_part_is_refused():
    files = persistence.packed({"a": 1}, {"b": np.zeros(2)})
    for name in files:
        with pytest.raises(StateFormatError, match=f"'it' lacks '{name}'"):
            persistence.unpacked({k: files[k] for k in files if k != name}, source="it")


def test_what_is_packed_is_what_a_folder_holds(fitted, manual, tmp_path):
    router = fitted(clock=manual)
    router.save(tmp_path / "router")
    _, (_, files, _) = router.__reduce__()
    assert files == {p.name: p.read_bytes() for p in (tmp_path / "router").iterdir()}


# --- another process ----------------------------------------------------------


def test_a_router_works_in_another_process(few, fitted, manual):
    router = fitted(clock=manual)
    learn(router, few)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as child:
        there = child.submit(router.predict, QUERIES).result()
        decision = child.submit(router.route, QUERY).result()
    here = router.predict(QUERIES)
    for name in ARRAYS:
        assert np.array_equal(getattr(here, name), getattr(there, name))
    again = router.route(QUERY)
    assert (decision.candidate, decision.scores) == (again.candidate, again.scores)
