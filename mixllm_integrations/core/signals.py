"""What the traffic itself tells of an answer: weak rewards that nobody gave.

A user asks again, a tool call fails, an answer cannot be parsed or breaks off.
Each is opted into by name, counts less than a grade, and counts nothing once
explicit grades show that it means nothing. Takes no lock: the router holds one.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Self

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.reliability import Evidence
from mixllm_integrations.core.types import (
    IMPLICIT_SIGNALS,
    FloatArray,
    ImplicitSignal,
    number_between,
)

__all__ = ["ImplicitSignals"]

# Our choice. An answer with a signal is so much worse than one without, until
# grades show otherwise: as many answers of each kind as make a mass of 20.
_PRIOR_EFFECT, _EFFECT_MASS = 0.3, 20.0
_PRIOR_RATE, _RATE_MASS = 0.05, 5.0
_CANDIDATE_MASS = 50.0  # the most that one candidate counts in the usual rate
# The first answer counts 0.3 of a grade, the n-th 1 / (1 + 0.06 n) of that: a rate
# of trouble says nothing of the rest of quality, however often it was seen.
_FIRST_WEIGHT, _WEIGHT_MASS = 0.3, 5.0


class ImplicitSignals:
    """Evidence from signals that were asked for, and how much each of them says.

    Parameters
    ----------
    wanted
        Which signals count; none by default.

    Attributes
    ----------
    bad
        After `from_state`: of which candidates the counts were left out, and
        why; ``"effects"`` stands for what was learned of the signals.

    Raises
    ------
    ConfigurationError
        If a signal is unknown.

    Notes
    -----
    Our choice. An answer of which nothing bad is known counts as better than
    expected by rate · effect, summed over the signals, and one that a signal
    came for as worse by the effect: a candidate with the usual rate of trouble
    nets 0, however much traffic it has. The usual rate is a mean over
    candidates, not answers. Effects are found by ridge regression of
    ``reward - predicted`` on the signals of graded answers, together, so that
    two signals which come together share what they say.

    Examples
    --------
    >>> signals = ImplicitSignals({"truncated"})
    >>> signals.signalled("truncated", "a")
    Evidence(residual=-0.3, weight=0.3)
    >>> signals.signalled("regenerate", "a")  # was not asked for
    """

    def __init__(self, wanted: Collection[ImplicitSignal] = ()) -> None:
        self.wanted = _known(wanted)
        self.bad: dict[str, str] = {}
        self._answers: dict[str, int] = {}
        self._counts: dict[str, FloatArray] = {}  # how often each signal came
        size = 1 + len(self.wanted)  # a constant, and the signals
        self._gram, self._moment = np.zeros((size, size)), np.zeros(size)
        self._effects = self._solved()

    def answered(self, name: str) -> Evidence | None:
        """Return what it says that an answer came, of which nothing bad is known.

        Parameters
        ----------
        name
            Whose answer; once for each.

        Returns
        -------
        Evidence or None
            A little better than expected: by what the usual rate of trouble
            makes it; ``None`` if no signal is wanted, or none says anything.
        """
        if not self.wanted:
            return None
        hoped = float(self._rates() @ self._effects)
        evidence = self._evidence(name, hoped)
        self._answers[name] = self._answers.get(name, 0) + 1
        return evidence

    def signalled(self, signal: ImplicitSignal, name: str) -> Evidence | None:
        """Return what it says that a signal came for an answer.

        Parameters
        ----------
        signal
            What was seen; once for each answer.
        name
            Whose answer. What `answered` said of it stays.

        Returns
        -------
        Evidence or None
            Worse than expected; ``None`` if the signal is not wanted, or says
            nothing.

        Raises
        ------
        ConfigurationError
            If there is no such signal.
        """
        _known((signal,))
        if signal not in self.wanted:
            return None
        place = self.wanted.index(signal)
        counts = self._counts.setdefault(name, np.zeros(len(self.wanted)))
        counts[place] += 1.0
        if self._effects[place] == 0.0:
            return None
        return self._evidence(name, -float(self._effects[place]))

    def graded(
        self, signals: Collection[ImplicitSignal], *, predicted: float, reward: float
    ) -> None:
        """Learn how much the signals say, from an answer that somebody graded.

        Parameters
        ----------
        signals
            Those that came for this answer; empty is just as telling.
        predicted
            The quality that was expected of it, in [0, 1].
        reward
            The grade, in [0, 1].

        Raises
        ------
        ConfigurationError
            If there is no such signal, or a number lies outside [0, 1].
        """
        came = _known(signals)
        surprise = number_between(reward, "a reward", high=1.0, truth_is_allowed=True)
        surprise -= number_between(predicted, "a predicted quality", high=1.0)
        if self.wanted:
            row = np.array([1.0, *(float(s in came) for s in self.wanted)])
            self._gram += np.multiply.outer(row, row)
            self._moment += surprise * row
            self._effects = self._solved()

    def reliability(self, signal: ImplicitSignal) -> float:
        """Return how much a signal says.

        Parameters
        ----------
        signal
            Which.

        Returns
        -------
        float
            By how much worse an answer is that it came for, in units of
            quality, in [0, 1]; 0 if it is not wanted.

        Raises
        ------
        ConfigurationError
            If there is no such signal.
        """
        _known((signal,))
        if signal not in self.wanted:
            return 0.0
        return float(self._effects[self.wanted.index(signal)])

    def rename(self, old: str, new: str) -> None:
        """Call a candidate by another name; nothing happens if it is unknown.

        Parameters
        ----------
        old, new
            Its names; what was known of the new one is forgotten.
        """
        if old == new or not (old in self._answers or old in self._counts):
            return
        self.discard(new)
        if old in self._answers:
            self._answers[new] = self._answers.pop(old)
        if old in self._counts:
            self._counts[new] = self._counts.pop(old)

    def discard(self, name: str) -> None:
        """Forget how often a candidate was in trouble.

        Parameters
        ----------
        name
            Its name.
        """
        self._answers.pop(name, None)
        self._counts.pop(name, None)

    def state(self) -> dict[str, Any]:
        """Return what was learned, as JSON, for `from_state`."""
        names = {**self._answers, **self._counts}
        none = np.zeros(len(self.wanted))
        return {
            "wanted": list(self.wanted),
            "candidates": {
                name: [self._answers.get(name, 0), *self._counts.get(name, none)]
                for name in names
            },
            "gram": self._gram.tolist(),
            "moment": self._moment.tolist(),
        }

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], *, wanted: Collection[ImplicitSignal]
    ) -> Self:
        """Return what `state` gave, without what is damaged.

        Parameters
        ----------
        state
            What `state` returned.
        wanted
            As for the class. If other signals were wanted then, all begins
            anew: what had not been asked for was not counted.

        Raises
        ------
        ConfigurationError
            If a signal is unknown.
        StateFormatError
            If it is no such state at all.
        """
        made = cls(wanted)
        rows = state.get("candidates") if isinstance(state, Mapping) else None
        if not isinstance(rows, Mapping):
            raise StateFormatError("what was learned of signals is not by candidate")
        if list(made.wanted) != state.get("wanted"):
            return made
        try:
            made._restore_effects(state["gram"], state["moment"])
        except (LookupError, TypeError, ValueError):
            made.bad["effects"] = "what was learned of the signals is damaged"
        for name, row in rows.items():
            try:
                made._restore_counts(name, *row)
            except (TypeError, ValueError):
                made.bad[name] = "its counts of signals are none"
        return made

    def _restore_effects(self, gram: object, moment: object) -> None:
        found = np.array(gram, dtype=np.float64), np.array(moment, dtype=np.float64)
        fits = [a.shape for a in found] == [self._gram.shape, self._moment.shape]
        if not (fits and all(np.isfinite(a).all() for a in found)):
            raise ConfigurationError("these are no sums over graded answers")
        least = np.linalg.eigvalsh(found[0]).min()
        if least < -1e-6 * (1.0 + abs(found[0]).max()) or found[0][0, 0] < 0.0:
            raise ConfigurationError("the sum of squares is indefinite")
        self._gram, self._moment = found
        self._effects = self._solved()

    def _restore_counts(self, name: str, answers: float, *counts: float) -> None:
        for count in (answers, *counts):
            number_between(count, "a count", high_is_allowed=False)
        if len(counts) != len(self.wanted):
            raise ConfigurationError("a count for each signal is wanted")
        self._answers[name] = int(answers)
        self._counts[name] = np.array(counts, dtype=np.float64)

    def _evidence(self, name: str, residual: float) -> Evidence | None:
        said = min(1.0, float(self._effects.max()) / _PRIOR_EFFECT)
        if said <= 0.0:
            return None
        spent = 1.0 + _FIRST_WEIGHT / _WEIGHT_MASS * self._answers.get(name, 0)
        return Evidence(residual, _FIRST_WEIGHT * said / spent)

    def _rates(self) -> FloatArray:
        """Return how often each signal comes for an answer, evenly over candidates."""
        total = np.full(len(self.wanted), _RATE_MASS * _PRIOR_RATE)
        mass = _RATE_MASS
        for name, answers in self._answers.items():
            counts = self._counts.get(name)
            own = answers / (1.0 + answers / _CANDIDATE_MASS)
            mass += own
            if counts is not None and answers:
                total += own * np.minimum(counts / answers, 1.0)
        return total / mass

    def _solved(self) -> FloatArray:
        """Return the effects: ridge regression towards the prior one."""
        effects = np.full(len(self.wanted), _PRIOR_EFFECT)
        if self._gram[0, 0] == 0.0:
            return effects
        held = _EFFECT_MASS * np.eye(len(self._moment))
        held[0, 0] = 0.0  # not the constant
        pulled = self._moment - held @ np.array([0.0, *effects])
        return np.clip(-np.linalg.solve(self._gram + held, pulled)[1:], 0.0, 1.0)


def _known(signals: Iterable[ImplicitSignal]) -> tuple[ImplicitSignal, ...]:
    """Return signals in their usual order, each once."""
    given = list(signals)
    for signal in given:
        if signal not in IMPLICIT_SIGNALS:
            raise ConfigurationError(
                f"unknown signal {signal!r}; use some of {IMPLICIT_SIGNALS}"
            )
    return tuple(s for s in IMPLICIT_SIGNALS if s in given)
