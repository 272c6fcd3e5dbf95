"""Who competes, what weighs how much, what is known: a router's state.

What one sets, and what outlives the process: `copying` carries it. `Router` adds
what it does with queries and records.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any, Literal, Self, TypeVar

from numpy.typing import NDArray

from mixllm_integrations.core import snapshot
from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.copying import Portable
from mixllm_integrations.core.decide import Decider, RetiredError
from mixllm_integrations.core.encoder import (
    Encoder,
    StaticEncoder,
    check_encoder,
    encoder_spec,
    load_encoder,
)
from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    StateFormatError,
    UnknownCandidateError,
)
from mixllm_integrations.core.experience import Experience
from mixllm_integrations.core.forecast import Forecaster, Knowledge
from mixllm_integrations.core.ledger import DecisionLedger
from mixllm_integrations.core.policy import ExplorationForm, MetaDecisionMaker
from mixllm_integrations.core.prior import QualityPrior, checked_prior
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.records import RecordTable
from mixllm_integrations.core.settings import RouterSettings
from mixllm_integrations.core.types import Candidate, FloatArray, number_between
from mixllm_integrations.core.waiting import WaitingModel

__all__ = ["CandidatePool"]

_LOG = logging.getLogger("mixllm_integrations")
_Answer = TypeVar("_Answer")
_NOBODY = Candidate("nobody", 0, 0)


class CandidatePool(Portable):
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
            decision_capacity=decision_capacity,
            decision_max_age_seconds=decision_max_age_seconds,
            seed=seed,
        )
        self._policy = MetaDecisionMaker(
            willingness_to_pay=willingness_to_pay,
            exploration=exploration,
            waiting_weight=waiting_weight,
            exploration_form=exploration_form,
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

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates that compete, in the order in which they were added."""
        return tuple(self._candidates.values())

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` has been called."""
        return self._knowledge.heads is not None

    @property
    def willingness_to_pay(self) -> float:
        """USD for one whole point of quality, above 0; may be set at any time."""
        return self._policy.willingness_to_pay

    @willingness_to_pay.setter
    def willingness_to_pay(self, value: float) -> None:
        self._policy.willingness_to_pay = value

    @property
    def exploration(self) -> float:
        """Weight of the uncertainty, at least 0; may be set at any time."""
        return self._policy.exploration

    @exploration.setter
    def exploration(self, value: float) -> None:
        self._policy.exploration = value

    @property
    def waiting_weight(self) -> float:
        """Weight of the waiting penalty, at least 0; may be set at any time."""
        return self._policy.waiting_weight

    @waiting_weight.setter
    def waiting_weight(self, value: float) -> None:
        self._policy.waiting_weight = value

    @property
    def waiting_tolerance_seconds(self) -> float:
        """How late an answer may start; may be set at any time."""
        return self._waiting.tolerance_seconds

    @waiting_tolerance_seconds.setter
    def waiting_tolerance_seconds(self, value: float) -> None:
        self._waiting.tolerance_seconds = value

    @property
    def max_cost_per_query(self) -> float | None:
        """Highest predicted cost in USD, or ``None``; may be set at any time."""
        return self._max_cost_per_query

    @max_cost_per_query.setter
    def max_cost_per_query(self, value: float | None) -> None:
        if value is not None:
            value = number_between(value, "max_cost_per_query")
        self._max_cost_per_query = value

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
            self._adopt(self._knowledge, self._experience)

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
            self._waiting.remove(name)
            self._experience.remove(name)
            self._adopt(self._knowledge, self._experience)

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        with self._lock:
            state, arrays = snapshot.router_state(
                self._knowledge, self._experience, self._ledger
            )
            prior = self._knowledge.prior
            state |= {
                "prior": prior.revision if prior else None,
                "candidates": [asdict(c) for c in self._candidates.values()],
                "encoder": encoder_spec(self.encoder),
                "settings": asdict(self._settings),
                "policy": asdict(self._policy),
                "waiting_tolerance_seconds": self.waiting_tolerance_seconds,
                "max_cost_per_query": self.max_cost_per_query,
            }
        return state, arrays

    @classmethod
    def _of_state(
        cls,
        state: dict[str, Any],
        arrays: dict[str, NDArray[Any]],
        *,
        source: str,
        encoder: Encoder | None,
        prior: QualityPrior | Literal["shipped"],
        clock: Callable[[], float],
    ) -> Self:
        try:
            if encoder is None:
                encoder = load_encoder(state["encoder"])
            check_encoder(state["encoder"], encoder)
            candidates = [Candidate(**given) for given in state["candidates"]]
            has_prior = state.get("prior", "") is not None
            router = cls(
                candidates or [_NOBODY],
                encoder=encoder,
                prior=prior if has_prior else "none",
                waiting_tolerance_seconds=state["waiting_tolerance_seconds"],
                max_cost_per_query=state["max_cost_per_query"],
                clock=clock,
                **state["settings"],
                **state["policy"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise StateFormatError(
                f"the state in {source!r} lacks {error}: restore it from a copy"
            ) from error
        if not candidates:  # all had left when it was saved
            router.remove_candidate(_NOBODY.name)
        router._restore(state, arrays, clock)
        return router

    def _restore(
        self, state: dict[str, Any], arrays: dict[str, Any], clock: Callable[[], float]
    ) -> None:
        knowledge, experience, self._ledger = snapshot.router_from(
            state,
            arrays,
            self._settings,
            names=tuple(self._candidates),
            probe=read(["Is everything in its place?", ""], self.encoder),
            clock=clock,
        )
        prior = self._knowledge.prior
        knowledge = replace(knowledge, prior=prior)
        revision = prior.revision if prior else None
        if knowledge.leans and state.get("prior") != revision:
            raise StateFormatError(
                f"the router was fitted beside prior {state.get('prior')!r}, not "
                f"{revision!r}: pass prior=, or fit again"
            )
        needs_prior = any(name not in knowledge.names for name in self._candidates)
        if needs_prior and state.get("prior") != revision:
            _LOG.warning("saved beside another prior than this one: pass prior=")
        self._adopt(knowledge, experience)

    def _learned(
        self,
        start: Knowledge,
        table: RecordTable,
        candidates: dict[str, Candidate],
        *,
        predictor: str | None = None,
    ) -> tuple[Knowledge, FloatArray]:
        return start.learned(
            table,
            candidates,
            encoder=self.encoder,
            predictor=predictor or self._settings.predictor,
            n_domains=self._settings.n_domains,
            seed=self._settings.seed,
        )

    def _new_experience(self, knowledge: Knowledge) -> Experience:
        settings = self._settings
        return Experience(knowledge, l2=settings.l2, forgetting=settings.forgetting)

    def _adopt(self, knowledge: Knowledge, experience: Experience) -> None:
        """Decide by this from now on; a decision under way begins anew."""
        self._decider.retired = True
        self._hold(knowledge, experience)

    def _hold(self, knowledge: Knowledge, experience: Experience) -> None:
        self._knowledge, self._experience = knowledge, experience
        self._decider = Decider(
            Forecaster(knowledge, tuple(self._candidates.values())),
            experience,
            self._policy,
            self._waiting,
            self._ledger,
            self._lock,
        )

    def _ask(self, question: Callable[[Decider], _Answer]) -> _Answer:
        """Ask who decides now; once more, under the lock, if it was retired."""
        try:
            return question(self._decider)
        except RetiredError:
            with self._lock:
                return question(self._decider)


def _check_candidate(candidate: Candidate) -> None:
    if not isinstance(candidate, Candidate):
        raise ConfigurationError(
            f"a candidate must be a Candidate, not a {type(candidate).__name__}"
        )
