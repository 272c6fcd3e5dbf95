"""Who competes, what weighs how much, what is known: a router's state.

What one sets, and what outlives the process: `copying` carries it. `Router` adds
what it does with queries and records.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np

from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.decide import Decider, RetiredError
from mixllm_integrations.core.drift import DriftEvent
from mixllm_integrations.core.encoder import Encoder, StaticEncoder
from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    UnknownCandidateError,
)
from mixllm_integrations.core.experience import Experience
from mixllm_integrations.core.exploring import ExplorationBudget
from mixllm_integrations.core.forecast import Forecaster, Knowledge
from mixllm_integrations.core.forking import ROUTERS, survive_forks
from mixllm_integrations.core.ledger import DecisionLedger
from mixllm_integrations.core.policy import ExplorationForm, MetaDecisionMaker
from mixllm_integrations.core.prior import QualityPrior, checked_prior
from mixllm_integrations.core.purse import LocalPurse
from mixllm_integrations.core.restoring import Restorable
from mixllm_integrations.core.settings import BinaryFeedback, RouterSettings
from mixllm_integrations.core.spending import SpendingControl, WhenSpent
from mixllm_integrations.core.types import (
    Candidate,
    ImplicitSignal,
)
from mixllm_integrations.core.waiting import WaitingModel

__all__ = ["CandidatePool"]

_Answer = TypeVar("_Answer")
_TRIAL_SHARE = 0.02  # of the spending of a period that trials may add
_MOST_DRIFTS = 100


class CandidatePool(Restorable):
    """Candidates, settings, and the state of knowledge that decisions are made by.

    Parameters are those of `Router`.
    """

    def __init__(
        self,
        candidates: Iterable[Candidate],
        *,
        encoder: Encoder | None = None,
        predictor: str = "auto",
        prior: QualityPrior | Literal["shipped", "none"] = "shipped",
        willingness_to_pay: float = 0.01,
        exploration: float = 0.01,
        exploration_form: ExplorationForm = "width",
        waiting_weight: float = 0.1,
        waiting_tolerance_seconds: float = 30.0,
        max_cost_per_query: float | None = None,
        n_domains: int = 20,
        l2: float = 1.0,
        forgetting: float = 1.0,
        binary_feedback: BinaryFeedback = "bayes",
        implicit_signals: Sequence[ImplicitSignal] = (),
        refit_every: int | None = None,
        exploration_spread: float = 1.0,
        randomisation: float = 0.0,
        exploration_budget: float | None = None,
        exploration_period_seconds: float = 86_400.0,
        spending_budget: float | None = None,
        spending_period_seconds: float = 86_400.0,
        when_spent: WhenSpent = "cheapest",
        decision_capacity: int = 20_000,
        decision_max_age_seconds: float = 7 * 86_400.0,
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
    ) -> None:
        self._settings = RouterSettings(
            predictor=predictor,
            n_domains=n_domains,
            l2=l2,
            forgetting=forgetting,
            binary_feedback=binary_feedback,
            implicit_signals=implicit_signals,  # type: ignore[arg-type] # made a tuple
            refit_every=refit_every,
            exploration_budget=exploration_budget,
            exploration_period_seconds=exploration_period_seconds,
            decision_capacity=decision_capacity,
            decision_max_age_seconds=decision_max_age_seconds,
            seed=seed,
        )
        self._policy = MetaDecisionMaker(
            willingness_to_pay=willingness_to_pay,
            exploration=exploration,
            waiting_weight=waiting_weight,
            exploration_form=exploration_form,
            exploration_spread=exploration_spread,
            randomisation=randomisation,
        )
        self.encoder: Encoder = StaticEncoder.load() if encoder is None else encoder
        if not isinstance(self.encoder, Encoder):
            raise ConfigurationError(
                f"an encoder needs id, revision, dimension and encode(texts); a "
                f"{type(encoder).__name__} lacks some. For a model's name or folder "
                "pass SentenceTransformerEncoder(name)"
            )
        self._clock = clock
        self._lock = threading.RLock()
        self._fitting = threading.RLock()  # of two fits, the later one must see both
        self._waiting = WaitingModel(
            tolerance_seconds=waiting_tolerance_seconds, clock=clock
        )
        self._ledger = DecisionLedger(
            capacity=decision_capacity,
            max_age_seconds=decision_max_age_seconds,
            clock=clock,
        )
        self._exploration = ExplorationBudget(**self._budget_terms(clock))
        self._spending = SpendingControl(
            LocalPurse(
                spending_budget, period_seconds=spending_period_seconds, clock=clock
            ),
            when_spent=when_spent,
        )
        self._rng = np.random.default_rng(seed)
        self._renamed: list[tuple[str, str]] = []  # ever, for a fit under way
        self._refit_mark = 0  # observations that the offline heads have learned
        self._drifts: deque[DriftEvent] = deque(maxlen=_MOST_DRIFTS)
        self._heard: dict[str, int] = {}  # how far, of each log that workers share
        self.max_cost_per_query = max_cost_per_query
        self._candidates: dict[str, Candidate] = {}
        knowledge = Knowledge(
            ContextModel.unfitted(self.encoder.dimension), prior=checked_prior(prior)
        )
        self._hold(knowledge, self._new_experience(knowledge))
        if isinstance(candidates, Candidate) or not isinstance(candidates, Iterable):
            raise ConfigurationError(
                "candidates must be a list of Candidate, not a "
                f"{type(candidates).__name__}"
            )
        for candidate in candidates:
            self.add_candidate(candidate)
        if not self._candidates:
            raise NoCandidateError
        survive_forks(self, order=ROUTERS)

    def before_fork(self) -> None:
        """Let no thread be in the middle of a decision while the process forks."""
        self._lock.acquire()

    def after_fork(self, *, in_child: bool) -> None:
        """Go on after `before_fork`.

        Parameters
        ----------
        in_child
            Whether this is the new process: the calls and the fits that are under
            way are the parent's.
        """
        if in_child:
            self._fitting = threading.RLock()
            for pending in self._ledger:
                self._waiting.finish(pending.decision_id)
        self._lock.release()

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates that compete, in the order in which they were added."""
        return tuple(self._candidates.values())

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` has been called."""
        return self._knowledge.heads is not None

    @property
    def drifts(self) -> tuple[DriftEvent, ...]:
        """The last alarms of candidates that are not what they were, oldest first."""
        with self._lock:
            return tuple(self._drifts)

    def add_candidate(self, candidate: Candidate) -> None:
        """Let a candidate compete from now on.

        It starts from its prior quality, or goes on with what was known of it
        when it was removed; its price takes effect at once.

        Parameters
        ----------
        candidate
            The newcomer.

        Raises
        ------
        ConfigurationError
            If there is one of that name.
        """
        _check_candidate(candidate)
        with self._lock:
            if candidate.name in self._candidates:
                raise ConfigurationError(
                    f"there are two candidates named {candidate.name!r}: names must be "
                    "unique"
                )
            self._candidates[candidate.name] = candidate
            self._waiting.add(candidate)
            self._experience.add(candidate.name)
            self._experience.welcome(candidate.name)
            self._adopt(self._knowledge, self._experience)

    def rename_candidate(self, old: str, new: str) -> None:
        """Let a candidate go on under another name, with all that is known of it.

        Parameters
        ----------
        old
            Its name.
        new
            Its name from now on; what was kept of a removed one of that name is
            forgotten.

        Raises
        ------
        UnknownCandidateError
            If there is none of the old name.
        ConfigurationError
            If there is one of the new name, or it is no name.
        """
        with self._lock:
            if old not in self._candidates:
                raise UnknownCandidateError(old, self._candidates)
            if new in self._candidates:
                raise ConfigurationError(
                    f"there is a candidate {new!r} already: names must be unique"
                )
            renamed = replace(self._candidates[old], name=new)
            in_order = {old: renamed}
            everyone = [in_order.get(n, c) for n, c in self._candidates.items()]
            self._candidates = {c.name: c for c in everyone}
            self._waiting.rename(old, new)
            self._experience.rename(old, new)
            self._ledger.outdate([new])
            self._ledger.rename(old, new)
            self._renamed.append((old, new))
            self._adopt(self._knowledge.renamed(old, new), self._experience)

    def replace_candidate(self, candidate: Candidate) -> None:
        """Let a candidate go on with another price or other abilities, in one step.

        It competes all the while. Its calls under way, what was learned of it
        and the speed that was measured stay; a declared speed or concurrency
        that is new takes effect, as everything else does, at once.

        Parameters
        ----------
        candidate
            The one that takes the place of the one of the same name.

        Raises
        ------
        ConfigurationError
            If it is no `Candidate`.
        UnknownCandidateError
            If there is none of that name.
        """
        _check_candidate(candidate)
        with self._lock:
            before = self._candidates.get(candidate.name)
            if before is None:
                raise UnknownCandidateError(candidate.name, self._candidates)
            self._candidates[candidate.name] = candidate
            self._waiting.replace(before, candidate)
            if _prices(before) != _prices(candidate):
                self._ledger.reprice(candidate.name)
            self._adopt(self._knowledge, self._experience)

    def remove_candidate(self, name: str) -> None:
        """Take a candidate out; what was learned of it is kept for its return.

        Parameters
        ----------
        name
            Whom.

        Raises
        ------
        UnknownCandidateError
            If there is no such candidate.
        """
        with self._lock:
            if name not in self._candidates:
                raise UnknownCandidateError(name, self._candidates)
            del self._candidates[name]
            self._ledger.reprice(name)  # should it return, then at another price
            self._waiting.remove(name)
            self._experience.remove(name)
            self._adopt(self._knowledge, self._experience)

    def _budget_terms(self, clock: Callable[[], float]) -> dict[str, Any]:
        share, settings = self._settings.exploration_budget, self._settings
        return {
            "share": _TRIAL_SHARE if share is None else share,
            "period_seconds": settings.exploration_period_seconds,
            "clock": clock,
        }

    def _new_experience(self, knowledge: Knowledge) -> Experience:
        return Experience(knowledge, self._settings)

    def _adopt(self, knowledge: Knowledge, experience: Experience) -> None:
        """Decide by this from now on; a decision under way begins anew."""
        self._decider.retired = True
        for name, base in self._decider.bases.items():
            if experience.replay.labels(name):
                experience.bases.setdefault(name, base)
        self._hold(knowledge, experience)

    def _hold(self, knowledge: Knowledge, experience: Experience) -> None:
        self._knowledge, self._experience = knowledge, experience
        self._decider = Decider(
            Forecaster(knowledge, tuple(self._candidates.values()), experience.bases),
            experience,
            self._policy,
            self._waiting,
            self._ledger,
            self._lock,
            exploration=self._exploration,
            exploration_is_capped=self._settings.exploration_budget is not None,
            spending=self._spending,
            rng=self._rng,
        )

    def _ask(self, question: Callable[[Decider], _Answer]) -> _Answer:
        """Ask who decides now; once more, under the lock, if it was retired."""
        try:
            return question(self._decider)
        except RetiredError:
            with self._lock:
                return question(self._decider)


def _prices(candidate: Candidate) -> tuple[float, float]:
    return (
        candidate.input_cost_per_million_tokens,
        candidate.output_cost_per_million_tokens,
    )


def _check_candidate(candidate: Candidate) -> None:
    if not isinstance(candidate, Candidate):
        raise ConfigurationError(
            f"a candidate must be a Candidate, not a {type(candidate).__name__}"
        )
