"""What a satisfied or dissatisfied user says about an answer's quality.

Thumbs are flipped by mistake, and unhappy users speak more often than happy
ones. So "7 of 10 satisfied" is no quality of 0.7, and who gets most of the
feedback would fall behind who gets none. How a source distorts is learned here,
for all candidates alike, and taken out again. Takes no lock: the router holds
one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.types import number_between

__all__ = ["Evidence", "Reliability", "SourceMap"]

_GRADE_VARIANCE = 0.2  # of a refined grade about the prediction: what weighs 1
_LOWEST, _HIGHEST = 0.02, 0.98  # nobody is known to be worse or better
_MOST_LOGIT = 4.0  # of a quality within them
_LEVEL_SD, _SLOPE_SD = 1.5, 0.3
_LEAST_SLOPE, _MOST_SLOPE = 0.05, 2.0
_MOST_LEVEL = 6.0
_MOST_SCORE = 2.0  # of weight · |residual|: no answer says more than two grades
# In logits, how far a candidate's true quality may lie from the predicted one:
# 0.05 of quality. What one candidate says of the level is worth no more.
_CANDIDATE_SD = 0.2
# Whatever is not known of a source: context and slow changes are still learned.
_LEAST_SHARE = 0.25
_MOST_SOURCES = 256
_UNNAMED, _OTHERS = "unnamed", "others"
_KIND = "binary/"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an observation says about one answer, in the units of a grade.

    Parameters
    ----------
    residual
        How much better (+) or worse (-) than predicted the answer seems to be,
        in units of quality.
    weight
        What it counts beside a refined grade, which counts 1; above 0.
    """

    residual: float
    weight: float


@dataclass(frozen=True, slots=True)
class SourceMap:
    """How one source turns quality into satisfaction.

    Parameters
    ----------
    level, slope
        P(satisfied) has the logit ``level + slope · logit(quality)``. Users who
        speak up when unhappy have a level below 0; random errors flatten the
        slope; 0 and 1 is a source without distortion.
    count
        How many rewards it was learned from.
    """

    level: float
    slope: float
    count: int


@dataclass(slots=True)
class _Source:
    """A map, the precision of its level and slope, and what each candidate gave."""

    level: float = 0.0
    slope: float = 1.0
    of_level: float = _LEVEL_SD**-2
    of_both: float = 0.0
    of_slope: float = _SLOPE_SD**-2
    count: int = 0
    # By candidate: information on its level, and the mean logit it was expected at.
    candidates: dict[str, tuple[float, float]] = field(default_factory=dict)

    def satisfied(self, logit: float) -> float:
        return _share(self.level + self.slope * logit)

    def share(self, name: str, logit: float) -> float:
        """Return what of one more reward tells of the candidate, not of the map."""
        determinant = self.of_level * self.of_slope - self.of_both**2
        variance = self.of_slope - 2.0 * logit * self.of_both
        variance = (variance + logit**2 * self.of_level) / determinant
        known, _ = self.candidates.get(name, (0.0, 0.0))
        return max((1.0 + variance * known) ** -2, _LEAST_SHARE)

    def learn(self, name: str, logit: float, reward: float) -> None:
        """Take one Newton step on the reward of an answer."""
        p = self.satisfied(logit)
        information, surprise = p * (1.0 - p), reward - p
        known, mean = self.candidates.get(name, (0.0, 0.0))
        # Variance of this candidate's own level: sd² + 1/known. What one more
        # reward adds to the information on the common level is the derivative.
        share = (1.0 + _CANDIDATE_SD**2 * known) ** -2
        known += information
        mean += information * (logit - mean) / known
        self.candidates[name] = known, mean
        # Within a candidate, its own level cancels out: all of it tells the slope.
        apart = logit - mean
        self.of_level += information * share
        self.of_both += information * share * mean
        self.of_slope += information * (share * mean * mean + apart * apart)
        first, second = surprise * share, surprise * (share * mean + apart)
        determinant = self.of_level * self.of_slope - self.of_both**2
        level = (self.of_slope * first - self.of_both * second) / determinant
        slope = (self.of_level * second - self.of_both * first) / determinant
        self.level = min(max(self.level + level, -_MOST_LEVEL), _MOST_LEVEL)
        self.slope = min(max(self.slope + slope, _LEAST_SLOPE), _MOST_SLOPE)
        self.count += 1


class Reliability:
    """One map from quality to satisfaction per source of feedback.

    Attributes
    ----------
    bad
        After `from_state`: of which sources something was left out, and why.

    Notes
    -----
    Our choice, for MixLLM's binary feedback. P(satisfied) = σ(a + b·logit(q))
    with q the predicted quality: that unhappy users speak more often shifts a
    and no more, random errors flatten b. Prior a = 0 ± 1.5, b = 1 ± 0.3, then
    one Newton step per reward. The map must not excuse a candidate that alone
    got worse. So each has a level of its own, ±0.2: what it says of the common
    level is worth at most one look at a level with that error, its first
    hundred rewards most of it. A candidate that turns bad later is found; one
    that alone gets all feedback, and is bad from the first day on, is not. The
    first 256 sources have a map each; later ones share one.

    Examples
    --------
    >>> thumbs = Reliability()
    >>> thumbs.evidence("thumbs", predicted=0.5, reward=1)  # weight: 0.2 / 0.25
    Evidence(residual=0.5, weight=0.8)
    """

    def __init__(self) -> None:
        self.bad: dict[str, str] = {}
        self._sources: dict[str, _Source] = {}

    def evidence(
        self, source: str | None, *, predicted: float, reward: float
    ) -> Evidence:
        """Return what one reward says about the quality of an answer.

        Parameters
        ----------
        source
            Who says so; ``None``: a source that all unnamed feedback shares.
        predicted
            The quality that was expected of the answer, in [0, 1]; best with all
            that was learned online: the map is straightened there, and far from
            the truth a difference looks smaller than it is.
        reward
            0 or 1.

        Returns
        -------
        Evidence
            How far the quality lies from the expected one, and the weight of
            that beside a refined grade.

        Raises
        ------
        ConfigurationError
            If the reward is not 0 or 1, or the quality lies outside [0, 1].

        Notes
        -----
        The working residual and weight of iteratively reweighted least squares:
        with p the probability of "satisfied", (reward - p)·q(1-q)/(b·p(1-p)) and
        0.2·b²·p(1-p)/(q(1-q))². Where either reward could count more than two
        grades, both count less. Where either residual would lie beyond ±1 both
        are shrunk alike, so that none is expected of what is as expected, and
        their weight is raised so that the product stays.
        """
        q, given = _inside(_quality(predicted)), _reward(reward)
        found = self._sources.get(self._key(source), _Source())
        p = found.satisfied(_logit(q))
        steepness = found.slope / (q * (1.0 - q))  # of the logit of p, by quality
        information = p * (1.0 - p)
        residual = (given - p) / (steepness * information)
        most = _GRADE_VARIANCE * steepness * max(p, 1.0 - p)
        weight = _GRADE_VARIANCE * steepness**2 * information
        weight *= min(1.0, _MOST_SCORE / most)
        shrink = min(1.0, steepness * information / max(p, 1.0 - p))
        return Evidence(min(max(shrink * residual, -1.0), 1.0), weight / shrink)

    def share(self, source: str | None, *, candidate: str, predicted: float) -> float:
        """Return what of the next evidence may move what is expected of a candidate.

        What is not known of the source yet is wrong for all answers alike, so
        that ever more of them do not make up for it.

        Parameters
        ----------
        source, predicted
            As for `evidence`.
        candidate
            Of whose answer it speaks.

        Returns
        -------
        float
            In [0.25, 1].

        Raises
        ------
        ConfigurationError
            If the quality lies outside [0, 1].

        Notes
        -----
        Our choice. With a map of variance v (of the logit, there) rewards of
        information k know a candidate's level with a variance of 1/k + v: what
        one more adds is the derivative of the inverse, 1/(1 + v·k)². On a training
        split of public data it took most of what noisy and unhappy users cost. It
        is no less than 0.25, so that what depends on the query, and what changes
        slowly, is learned.
        """
        logit = _logit(_quality(predicted))
        return self._sources.get(self._key(source), _Source()).share(candidate, logit)

    def learn(
        self, source: str | None, *, candidate: str, predicted: float, reward: float
    ) -> None:
        """Learn how a source speaks, after its evidence was taken.

        Parameters
        ----------
        source
            As for `evidence`.
        candidate
            Of whose answer it speaks.
        predicted
            The quality that the offline heads alone predicted, in [0, 1]. What
            was learned online came through this map: its early errors would
            excuse themselves.
        reward
            0 or 1.

        Raises
        ------
        ConfigurationError
            If the reward is not 0 or 1, or the quality lies outside [0, 1].
        """
        logit, given = _logit(_quality(predicted)), _reward(reward)
        found = self._sources.setdefault(self._key(source), _Source())
        found.learn(candidate, logit, given)

    def maps(self) -> dict[str, SourceMap]:
        """Return what was learned of each source, by its name."""
        return {
            key.removeprefix(_KIND): SourceMap(s.level, s.slope, s.count)
            for key, s in self._sources.items()
        }

    def rename(self, old: str, new: str) -> None:
        """Call a candidate by another name; nothing happens if it is unknown.

        Parameters
        ----------
        old, new
            Its names.
        """
        for source in self._sources.values():
            if old in source.candidates:
                source.candidates[new] = source.candidates.pop(old)

    def discard(self, name: str) -> None:
        """Forget how much a candidate has said; what was learned of it stays.

        Parameters
        ----------
        name
            Its name.
        """
        for source in self._sources.values():
            source.candidates.pop(name, None)

    def state(self) -> dict[str, Any]:
        """Return what was learned, as JSON, for `from_state`."""
        return {
            key: {
                "map": [s.level, s.slope],
                "precision": [s.of_level, s.of_both, s.of_slope],
                "count": s.count,
                "candidates": {n: list(told) for n, told in s.candidates.items()},
            }
            for key, s in self._sources.items()
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return what `state` gave, without what is damaged.

        Parameters
        ----------
        state
            What `state` returned.

        Returns
        -------
        Reliability
            `bad` says of which sources something was left out.

        Raises
        ------
        StateFormatError
            If it holds no sources at all.
        """
        if not isinstance(state, Mapping):
            raise StateFormatError(
                "what was learned of sources must be a table by source, not a "
                f"{type(state).__name__}"
            )
        made = cls()
        for key, row in state.items():
            name = str(key).removeprefix(_KIND)
            try:
                source, damaged = _source_from(row)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                made.bad[name] = f"its map cannot be read ({type(error).__name__})"
                continue
            made._sources[str(key)] = source
            if damaged:
                made.bad[name] = f"what it said of candidates {damaged} is damaged"
        return made

    def _key(self, source: str | None) -> str:
        key = _KIND + (source or _UNNAMED)
        full = len(self._sources) >= _MOST_SOURCES and key not in self._sources
        return _KIND + _OTHERS if full else key


def _source_from(row: Mapping[str, Any]) -> tuple[_Source, list[str]]:
    """Return a source, and the candidates whose part of it is damaged."""
    finite = {"low_is_allowed": False, "high_is_allowed": False}
    level, slope = row["map"]
    of_level, of_both, of_slope = row["precision"]
    found = _Source(
        number_between(level, "level", low=-_MOST_LEVEL, high=_MOST_LEVEL),
        number_between(slope, "slope", low=_LEAST_SLOPE, high=_MOST_SLOPE),
        number_between(of_level, "precision", **finite),
        float(of_both),
        number_between(of_slope, "precision", **finite),
        int(number_between(row["count"], "count", high_is_allowed=False)),
    )
    if not of_both**2 < of_level * of_slope:
        raise ConfigurationError("the precision of a map is indefinite")
    damaged = []
    for candidate, told in row["candidates"].items():
        try:
            known = number_between(told[0], "information", **finite)
            mean = number_between(told[1], "logit", low=-_MOST_LOGIT, high=_MOST_LOGIT)
            found.candidates[candidate] = known, mean
        except (LookupError, TypeError, ConfigurationError):
            damaged.append(candidate)
    return found, damaged


def _quality(value: float) -> float:
    return number_between(value, "a predicted quality", high=1.0)


def _reward(value: float) -> float:
    if number_between(value, "a reward", high=1.0, truth_is_allowed=True) in (0, 1):
        return float(value)
    raise ConfigurationError(
        f"a binary reward must be 0 or 1, not {value!r}; grades between need no map"
    )


def _inside(quality: float) -> float:
    return min(max(quality, _LOWEST), _HIGHEST)


def _logit(quality: float) -> float:
    inside = _inside(quality)
    return math.log(inside / (1.0 - inside))


def _share(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))
