"""The decisions of a window as arrays, each with what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.types import FloatArray

__all__ = ["STATES", "Alarm", "State", "Traffic"]

State = Literal["open", "answered", "cached", "abandoned", "failed"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True, slots=True)
class Alarm:
    """A candidate was noticed to have changed.

    Parameters
    ----------
    at
        When.
    candidate
        Which.
    text
        What was noticed, in words.
    """

    at: datetime
    candidate: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """The decisions of a window, and what came of them.

    Parameters
    ----------
    names
        Every candidate that was named.
    chosen
        Place of the chosen candidate in `names`, shape ``(n_decisions,)`` like
        all that follow but the matrices.
    state
        Place in `STATES` of what became of the decision.
    reward
        Feedback, in [0, 1]; NaN without. Refined feedback goes before binary.
    cost
        What it cost in USD; NaN if unknown or not answered.
    predicted_quality, predicted_cost
        Of the chosen candidate, in [0, 1] and USD.
    propensity, willingness_to_pay, exploration, waiting_weight
        Of each decision.
    at
        When it was made, in seconds since 1970.
    latency_seconds, time_to_first_token_seconds
        Of the answer; NaN if unknown or not answered.
    ids, domains
        Name of each decision, and what its query is about, as far as the router
        that decided could tell.
    explored
        Whether it differs from the choice without exploration.
    scores
        What was expected of each candidate: ``"quality"``, ``"cost"``,
        ``"uncertainty"`` and ``"waiting_penalty"``, each of shape
        ``(n_decisions, n_candidates)``; NaN where nothing was logged.
    eligible
        Who might have been chosen, ``(n_decisions, n_candidates)``; nobody
        where scores were not logged.
    first, last
        When the first and the last decision were made; ``None`` without any.
    drifts
        How many alarms there were of each candidate.
    unmatched
        Outcomes and feedback whose decision is not in the window.
    unreadable
        Events whose payload has not what it must have.
    alarms
        That a candidate has changed, oldest first.
    """

    names: tuple[str, ...]
    chosen: NDArray[np.intp]
    state: NDArray[np.int8]
    reward: FloatArray
    cost: FloatArray
    predicted_quality: FloatArray
    predicted_cost: FloatArray
    propensity: FloatArray
    willingness_to_pay: FloatArray
    exploration: FloatArray
    waiting_weight: FloatArray
    at: FloatArray
    latency_seconds: FloatArray
    time_to_first_token_seconds: FloatArray
    ids: tuple[str, ...]
    domains: tuple[str | None, ...]
    explored: NDArray[np.bool_]
    scores: Mapping[str, FloatArray]
    eligible: NDArray[np.bool_]
    first: datetime | None
    last: datetime | None
    drifts: Mapping[str, int]
    unmatched: int
    unreadable: int
    alarms: tuple[Alarm, ...] = ()

    def __len__(self) -> int:
        return len(self.chosen)

    def is_state(self, *states: State) -> NDArray[np.bool_]:
        """Return which decisions came to one of some ends.

        Parameters
        ----------
        *states
            Of `STATES`.
        """
        return np.isin(self.state, [STATES.index(state) for state in states])

    @property
    def replayable(self) -> NDArray[np.bool_]:
        """Which decisions another policy can be tried on.

        Those with scores that were answered, or still may be. One that failed
        was decided again, and is there a second time; one from a cache costs
        nothing whoever is asked.
        """
        rows = np.arange(len(self))
        is_scored = (
            self.eligible[rows, self.chosen] if self.names else np.zeros(0, np.bool_)
        )
        is_known = (self.propensity > 0.0) & (self.propensity <= 1.0)
        return is_scored & is_known & self.is_state("open", "answered")

    def select(self, wanted: NDArray[np.bool_]) -> "Traffic":
        """Return some of the decisions; what is told of the window stays.

        Parameters
        ----------
        wanted
            Which, shape ``(n_decisions,)``.
        """
        changed: dict[str, Any] = {
            one.name: getattr(self, one.name)[wanted]
            for one in fields(self)
            if isinstance(getattr(self, one.name), np.ndarray)
        }
        rows = np.flatnonzero(wanted).tolist()
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            domains=tuple(self.domains[row] for row in rows),
            scores={name: values[wanted] for name, values in self.scores.items()},
            **changed,
        )
