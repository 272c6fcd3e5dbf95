"""All that a router is, as JSON and arrays, and a router that was all that.

Beside `copying`, which carries it, and `snapshot`, which takes apart what was
learned.
"""

import logging
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core import snapshot
from mixllm_integrations.core.copying import Portable
from mixllm_integrations.core.drift import DriftEvent
from mixllm_integrations.core.encoder import (
    Encoder,
    check_encoder,
    encoder_spec,
    load_encoder,
)
from mixllm_integrations.core.errors import MixLLMError, StateFormatError
from mixllm_integrations.core.experience import Experience
from mixllm_integrations.core.exploring import ExplorationBudget
from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.knobs import Knobs
from mixllm_integrations.core.ledger import DecisionLedger
from mixllm_integrations.core.policy import MetaDecisionMaker
from mixllm_integrations.core.prior import QualityPrior
from mixllm_integrations.core.reading import read
from mixllm_integrations.core.settings import RouterSettings
from mixllm_integrations.core.snapshot_online import warn_dropped
from mixllm_integrations.core.spending import SpendingControl
from mixllm_integrations.core.types import Candidate

__all__ = ["Restorable"]

_LOG = logging.getLogger("mixllm_integrations")
_NOBODY = Candidate("nobody", 0, 0)
# What a folder may say of how its router was made: never its clock or encoder.
_SETTINGS = frozenset(f.name for f in fields(RouterSettings)) | {
    *("spending_budget", "spending_period_seconds", "when_spent"),
}
_POLICY = frozenset(f.name for f in fields(MetaDecisionMaker))
_ERRORS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class Restorable(Knobs, Portable):
    """What `CandidatePool` is made of, saved and restored."""

    _candidates: dict[str, Candidate]
    _settings: RouterSettings
    _experience: Experience
    _ledger: DecisionLedger
    _exploration: ExplorationBudget
    _spending: SpendingControl
    _drifts: deque[DriftEvent]
    _refit_mark: int
    _rng: np.random.Generator
    _lock: threading.RLock

    @abstractmethod
    def remove_candidate(self, name: str) -> None:
        """Take a candidate out."""

    @abstractmethod
    def _hold(self, knowledge: Knowledge, experience: Experience) -> None:
        """Decide by this from now on."""

    @abstractmethod
    def _budget_terms(self, clock: Callable[[], float]) -> dict[str, Any]:
        """Return what exploring may cost, as `ExplorationBudget` takes it."""

    def _state(
        self, *, compact: bool = False, unheard: bool = False
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        with self._lock:
            state, arrays = snapshot.router_state(
                self._knowledge, self._experience, self._ledger, unheard=unheard
            )
            if compact:
                state, arrays = snapshot.without_replay(state, arrays)
            prior = self._knowledge.prior
            state |= {
                "prior": prior.revision if prior else None,
                "candidates": [asdict(c) for c in self._candidates.values()],
                "encoder": encoder_spec(self.encoder),
                "settings": {**asdict(self._settings), **self._spending_terms()},
                "policy": asdict(self._policy),
                "waiting_tolerance_seconds": self.waiting_tolerance_seconds,
                "max_cost_per_query": self.max_cost_per_query,
                "exploration": self._exploration.state(),
                "spending": self._spending.state(),
                "chance": self._rng.bit_generator.state,
                "drifts": [asdict(event) for event in self._drifts],
                "unlearned": self._experience.replay.mark - self._refit_mark,
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
            given: dict[str, Any] = {
                "encoder": encoder,
                "prior": prior if has_prior else "none",
                "waiting_tolerance_seconds": state["waiting_tolerance_seconds"],
                "max_cost_per_query": state["max_cost_per_query"],
                "clock": clock,
                **_only(state["settings"], _SETTINGS),
                **_only(state["policy"], _POLICY),
            }
            router = cls(candidates or [_NOBODY], **given)  # type: ignore[call-arg]
        except MixLLMError:
            raise
        except _ERRORS as error:
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
        try:
            self._exploration = ExplorationBudget.from_state(
                state["exploration"], **self._budget_terms(clock)
            )
            self._drifts.extend(DriftEvent(**event) for event in state["drifts"])
            unlearned = int(state["unlearned"])
            self._rng.bit_generator.state = state["chance"]
        except _ERRORS as error:
            raise StateFormatError(f"the saved state lacks {error}") from error
        self._refit_mark = max(experience.replay.mark - unlearned, 0)
        self._restore_spending(state.get("spending", {}))
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
        self._hold(knowledge, experience)

    def _spending_terms(self) -> dict[str, Any]:
        return {
            "spending_budget": self.spending_budget,
            "spending_period_seconds": self.spending_period_seconds,
            "when_spent": self.when_spent,
        }

    def _restore_spending(self, state: dict[str, Any]) -> None:
        """Go on in the period that was saved; warn if that cannot be read."""
        if not state:  # nothing was saved, or it was damaged: a warning has said so
            return
        try:
            self._spending.restore(state)
        except _ERRORS as error:
            warn_dropped(
                "what was spent of the budget", str(error), "a new period begins"
            )


def _only(given: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    if unknown := sorted(set(given) - known):
        raise KeyError(f"no meaning for {unknown[0]!r}")
    return dict(given)
