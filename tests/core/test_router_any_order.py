"""Whatever happens to a router in whatever order, its numbers stay numbers."""

import copy
import math
import shutil
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    UnknownCandidateError,
    UnknownDecisionError,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import IMPLICIT_SIGNALS, Candidate, Outcome

ARRAYS = ("quality", "output_tokens", "cost", "uncertainty")
NAMES = ("calculator", "lawyer", "all-round", "guest", "モデル 🤖")
QUERIES = ("", "Explain contract about court?", "Explain sum 1 + 1", "東京 🤖")
SETTINGS = (
    {"exploration": 0.3},
    {"exploration_form": "thompson", "randomisation": 0.2},
    {"forgetting": 0.9, "exploration_budget": 0.02},
    {"binary_feedback": "policy_gradient", "refit_every": 7},
)

names = st.sampled_from(NAMES)
prices = st.sampled_from([0.0, 0.5, 4.0, 1e6])
rewards = st.sampled_from([0.0, 0.3, 1.0])
tokens = st.sampled_from([0, 1, 300, 200_000])
places = st.integers(0, 7)


class AnyOrder(RuleBasedStateMachine):
    """All that may happen to a router, beside the little that is sure of it."""

    fitted: tuple[Router, ...] = ()

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.made = []
        self.was_restarted = False

    def teardown(self):
        self.settle()
        shutil.rmtree(self.folder)

    @initialize(which=st.integers(0, len(SETTINGS) - 1))
    def begin(self, which):
        self.router = copy.deepcopy(self.fitted[which])
        self.names = [c.name for c in self.router.candidates]

    def some(self, place):
        """Return one of the last decisions, or one that never was."""
        return self.made[-1 - place] if place < len(self.made) else "never made"

    def told(self, place, tell):
        decision_id = self.some(place)
        try:
            tell(decision_id)
        except UnknownDecisionError:  # what cannot teach any more is not saved
            assert decision_id == "never made" or self.was_restarted

    # --- queries ------------------------------------------------------------------

    @rule(query=st.sampled_from(QUERIES), among=st.none() | st.sets(names, min_size=1))
    def route(self, query, among):
        left = set(self.names) if among is None else among & set(self.names)
        try:
            decision = self.router.route(query, among=among)
        except UnknownCandidateError:
            assert not among <= set(self.names)
            return
        except NoCandidateError:
            assert not left
            return
        assert decision.candidate in left
        assert 0.0 < decision.propensity <= 1.0
        assert math.isfinite(decision.prediction.score)
        self.made.append(decision.id)

    @rule(
        place=places,
        sent=tokens,
        length=tokens,
        cost=st.none() | st.sampled_from([0.0, 1e-5, 1e9]),
        seconds=st.none() | st.sampled_from([0.0, 1e-3, 2.0, 1e6]),
        error=st.sampled_from([None, None, "TimeoutError", "broken off"]),
    )
    def outcome(self, place, sent, length, cost, seconds, error):
        given = Outcome(sent, length, cost, seconds, error=error)
        self.told(place, lambda i: self.router.record_outcome(i, given))

    @rule(place=places, reward=rewards, source=st.sampled_from([None, "thumbs"]))
    def feedback(self, place, reward, source):
        kind = "refined" if reward == 0.3 or source is None else "binary"
        self.told(
            place,
            lambda i: self.router.record_feedback(i, reward, kind=kind, source=source),
        )

    @rule(place=places, signal=st.sampled_from(IMPLICIT_SIGNALS))
    def signal(self, place, signal):
        self.told(place, lambda i: self.router.record_signal(i, signal))

    @rule(reward=rewards, name=names, n=st.integers(1, 60))
    def much_feedback(self, reward, name, n):
        if name in self.names:
            for index in range(n):
                query = f"{QUERIES[index % len(QUERIES)]} {index}"
                decision = self.router.route(query, among=[name])
                self.router.record_outcome(decision.id, Outcome(9, 10 * n))
                self.router.record_feedback(decision.id, reward)
                self.made.append(decision.id)

    # --- candidates ---------------------------------------------------------------

    @rule(name=names, price=prices, prior=st.none() | rewards)
    def add(self, name, price, prior):
        candidate = Candidate(name, price, price, prior_quality=prior)
        if name in self.names:
            with pytest.raises(ConfigurationError):
                self.router.add_candidate(candidate)
        else:
            self.router.add_candidate(candidate)
            self.names.append(name)

    @rule(name=names, price=prices)
    def reprice(self, name, price):
        candidate = Candidate(name, price, price)
        if name in self.names:
            self.router.replace_candidate(candidate)
        else:
            with pytest.raises(UnknownCandidateError):
                self.router.replace_candidate(candidate)

    @rule(name=names)
    def remove(self, name):
        if name in self.names:
            self.router.remove_candidate(name)
            self.names.remove(name)
        else:
            with pytest.raises(UnknownCandidateError):
                self.router.remove_candidate(name)

    @rule(old=names, new=names)
    def rename(self, old, new):
        if old in self.names and new not in self.names:
            self.router.rename_candidate(old, new)
            self.names[self.names.index(old)] = new
        else:
            with pytest.raises((UnknownCandidateError, ConfigurationError)):
                self.router.rename_candidate(old, new)

    # --- the whole ----------------------------------------------------------------

    def settle(self):
        """Wait for what goes on in the background."""
        for thread in threading.enumerate():
            if thread.name == "refit":
                thread.join()

    @rule()
    def refit(self):
        self.settle()
        assert self.router.refit() in (True, False)
        assert self.router.refit() is False

    @rule(compact=st.booleans())
    def restart(self, compact):
        self.settle()
        before = self.predicted()
        self.router.save(self.folder / "r", compact=compact)
        self.router = Router.load(self.folder / "r")
        self.was_restarted = True
        for one, two in zip(before, self.predicted(), strict=True):
            assert np.array_equal(one, two)

    @rule()
    @precondition(lambda self: self.names)
    def copied(self):
        self.settle()
        self.router = copy.deepcopy(self.router)
        self.was_restarted = True

    def predicted(self):
        found = self.router.predict(list(QUERIES))
        assert list(found.candidates) == self.names
        return [getattr(found, what) for what in ARRAYS]

    @invariant()
    def is_sound(self):
        quality, *others = self.predicted()
        assert ((quality >= 0.0) & (quality <= 1.0)).all()
        for numbers in others:
            assert (np.isfinite(numbers) & (numbers >= 0.0)).all()
        for name in self.names:
            assert self.router._waiting.in_flight(name) >= 0
        assert self.router._exploration.allowance() >= 0.0


def test_any_order_of_events_leaves_a_router_sound(few):
    class Machine(AnyOrder):
        fitted = tuple(
            Router(
                few.candidates,
                predictor="ridge",
                implicit_signals=IMPLICIT_SIGNALS,
                **given,
            ).fit(few.records())
            for given in SETTINGS
        )

    run_state_machine_as_test(
        Machine, settings=settings(max_examples=25, stateful_step_count=20)
    )
