"""The paper's head for binary feedback: one small network for all candidates.

A context goes through two shared layers; each candidate has a row of the third.
The rows are scores of a softmax policy that learns by policy gradient. Takes no
lock: the router holds one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import (
    ConfigurationError,
    StateFormatError,
    UnknownCandidateError,
)
from mixllm_integrations.core.types import FloatArray, number_between

__all__ = ["FeedbackHead"]

# Our choice: a context has parts of length 1, so this keeps tanh off its limits.
_FIRST_SD = 0.7
_MOST_QUALITY = 0.5  # that a score can add or take
# By how much (squared) feedback may correct the quality that was expected; and so
# many rewards, half of them good, stand behind each mean.
_PRIOR_VARIANCE = 0.02
_PRIOR_REWARDS = 4.0
_PARTS = ("inner", "middle", "outer", "told")


class FeedbackHead:
    """Scores of candidates that are learned from satisfied and dissatisfied users.

    Parameters
    ----------
    dimension
        Length of a context; its last number is constant.
    hidden
        Widths of the two shared layers.
    learning_rate
        Step of gradient ascent.
    seed
        Decides how the shared layers start.

    Attributes
    ----------
    refused
        How many rewards were refused because a number was not finite, or would
        have become so.
    bad
        After `from_state`: which candidates were left out, and why.

    Raises
    ------
    ConfigurationError
        If a setting cannot be used.

    Notes
    -----
    Source: MixLLM Eq. 16-22 as reported: a shared network of three layers gives
    a feedback score per candidate, weighted by an inverse-variance confidence,
    trained by policy gradient with the reward, learning rate 0.001. Our choice,
    where the paper is silent: widths, tanh, rows that start at 0, plain gradient
    steps, a baseline (the mean reward) taken off the reward, a softmax over
    those that competed, and scores of at most half a point of quality. The
    router, not the softmax, chooses: what is learned is which candidate to
    prefer, and no probability.

    Examples
    --------
    >>> head = FeedbackHead(2)
    >>> head.add("a")
    >>> head.scores(np.array([[0.6, 1.0]]), ["a"]).tolist()  # no feedback yet
    [[0.0]]
    """

    def __init__(
        self,
        dimension: int,
        *,
        hidden: tuple[int, int] = (64, 32),
        learning_rate: float = 0.001,
        seed: int = 0,
    ) -> None:
        wanted = {"dimension": dimension, "hidden 1": hidden[0], "hidden 2": hidden[1]}
        self.dimension, first, second = (
            int(number_between(width, what, low=1, high=100_000))
            for what, width in wanted.items()
        )
        self.learning_rate = number_between(
            learning_rate, "learning_rate", high=1.0, low_is_allowed=False
        )
        self.refused = 0
        self.bad: dict[str, str] = {}
        drawn = np.random.default_rng(seed)
        self._inner = drawn.normal(0.0, _FIRST_SD, (first, self.dimension))
        self._middle = drawn.normal(0.0, 1.0 / np.sqrt(first), (second, first + 1))
        self._middle[:, -1] = 0.0  # its bias, as the last column of each row
        self._outer = np.zeros((0, second + 1))
        self._told = np.zeros((0, 2))  # how many rewards, and their sum
        self._places: dict[str, int] = {}  # rows of the two above
        self._names: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The candidates, in the order in which they were added."""
        return tuple(self._names)

    @property
    def kept(self) -> tuple[str, ...]:
        """Removed candidates of which all is kept."""
        return tuple(name for name in self._places if name not in self._names)

    def add(self, name: str) -> None:
        """Add a candidate: at score 0, or as it was when it was removed.

        Raises
        ------
        ConfigurationError
            If there is one of that name.
        """
        if name in self._names:
            raise ConfigurationError(f"there is an arm {name!r} already")
        if name not in self._places:
            self._places[name] = len(self._told)
            self._outer = np.pad(self._outer, ((0, 1), (0, 0)))
            self._told = np.pad(self._told, ((0, 1), (0, 0)))
        self._names[name] = None

    def remove(self, name: str) -> None:
        """Remove a candidate and keep what was learned, so that it can come back.

        Raises
        ------
        UnknownCandidateError
            If there is none of that name.
        """
        self._rows([name])
        del self._names[name]

    def discard(self, name: str) -> None:
        """Forget a candidate; nothing happens if there is none."""
        place = self._places.pop(name, None)
        if place is None:
            return
        self._outer = np.delete(self._outer, place, axis=0)
        self._told = np.delete(self._told, place, axis=0)
        self._places = {n: p - (p > place) for n, p in self._places.items()}
        self._names.pop(name, None)

    def rename(self, old: str, new: str) -> None:
        """Give a candidate, competing or removed, another name.

        Raises
        ------
        UnknownCandidateError
            If none has the old name.
        ConfigurationError
            If one, competing or removed, has the new name already.
        """
        if old not in self._places:
            raise UnknownCandidateError(old, self._places)
        if new in self._places:
            raise ConfigurationError(
                f"there is an arm {new!r} already: discard it before {old!r} is renamed"
            )
        self._places = {new if n == old else n: p for n, p in self._places.items()}
        self._names = {new if n == old else n: None for n in self._names}

    def scores(
        self, contexts: NDArray[np.floating], names: Sequence[str]
    ) -> FloatArray:
        """Return what to add to the quality that is expected of each candidate.

        Parameters
        ----------
        contexts
            Shape ``(n, dimension)``.
        names
            Which candidates.

        Returns
        -------
        FloatArray
            In units of quality, between -0.5 and 0.5, shape ``(n, len(names))``:
            ``confidence · tanh(score) / 2``; 0 without feedback.

        Raises
        ------
        UnknownCandidateError
            If there is no such candidate.
        ConfigurationError
            If a context has another length.

        Notes
        -----
        The confidence is that of a mean of n rewards with variance v beside a
        prior of variance 0.02: n / (n + v/0.02), v from the candidate's own
        share of good rewards.
        """
        given, rows = self._contexts(contexts), self._rows(names)
        if not self._told[rows].any():
            return np.zeros((len(given), len(rows)))
        # Not `@`: the bits of a matrix product depend on its other rows.
        first = _extended(np.tanh(np.einsum("nd,hd->nh", given, self._inner)))
        second = _extended(np.tanh(np.einsum("nh,gh->ng", first, self._middle)))
        raw = np.einsum("ng,kg->nk", second, self._outer[rows])
        found: FloatArray = np.tanh(raw) * _confidence(self._told[rows])
        return found * _MOST_QUALITY

    def learn(
        self,
        name: str,
        context: NDArray[np.floating],
        reward: float,
        *,
        among: Sequence[str],
        expected: float | None = None,
    ) -> bool:
        """Take one step up the policy gradient.

        Parameters
        ----------
        name
            Who answered.
        context
            Shape ``(dimension,)``.
        reward
            0 or 1, or between.
        among
            Who competed; those that are gone for good do not count.
        expected
            What reward was to be expected, which is taken off it; ``None``: the
            mean of all so far.

        Returns
        -------
        bool
            Whether it was taken; a refusal changes nothing and is counted.

        Raises
        ------
        UnknownCandidateError
            If there is no candidate of that name.
        ConfigurationError
            If the context has another length.
        """
        own = int(self._rows([name])[0])
        rivals = sorted({self._places[n] for n in among if n in self._places} | {own})
        x = self._contexts(np.asarray(context)[None])[0]
        step = reward - (self._mean_reward() if expected is None else expected)
        step *= self.learning_rate
        with np.errstate(all="ignore"):
            slopes = self._gradient(x, rivals, rivals.index(own))
            inner = self._inner + step * slopes[0]
            middle = self._middle + step * slopes[1]
            outer = self._outer[rivals] + step * slopes[2]
            is_sound = np.isfinite(inner.sum() + middle.sum() + outer.sum())
        if not (is_sound and 0.0 <= reward <= 1.0):
            self.refused += 1
            return False
        self._inner, self._middle, self._outer[rivals] = inner, middle, outer
        self._told[own] += 1.0, reward
        return True

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return everything, for `from_state` together with `names` and `kept`."""
        rows = [self._places[name] for name in (*self.names, *self.kept)]
        layers = self._inner.copy(), self._middle.copy()
        parts = (*layers, self._outer[rows], self._told[rows])
        return dict(zip(_PARTS, parts, strict=True))

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, NDArray[Any]],
        *,
        names: Sequence[str],
        kept: Sequence[str] = (),
        dimension: int,
        hidden: tuple[int, int] = (64, 32),
        learning_rate: float = 0.001,
        seed: int = 0,
    ) -> Self:
        """Return the head that `state` gave, without what is damaged.

        Parameters
        ----------
        state
            What `state` returned.
        names, kept
            As they were then.
        dimension, hidden, learning_rate, seed
            As for the class.

        Returns
        -------
        FeedbackHead
            `bad` says which candidates were left out, and why: all of them if
            the shared layers cannot be used.

        Raises
        ------
        StateFormatError
            If it cannot be told which row belongs to which candidate.
        """
        head = cls(dimension, hidden=hidden, learning_rate=learning_rate, seed=seed)
        everyone = [*names, *kept]
        inner, middle, outer, told = (np.asarray(state.get(part)) for part in _PARTS)
        if not outer.shape[:1] == told.shape[:1] == (len(everyone),):
            raise StateFormatError(
                f"{len(everyone)} candidates need as many rows, not arrays of shape "
                f"{outer.shape} and {told.shape}"
            )
        fits = (outer.shape[1:], told.shape[1:]) == (head._outer.shape[1:], (2,))
        if not (
            fits and _is_like(inner, head._inner) and _is_like(middle, head._middle)
        ):
            head.bad = dict.fromkeys(everyone, "the shared layers cannot be used")
            return head
        head._inner, head._middle = inner.astype(np.float64), middle.astype(np.float64)
        is_count = (told[:, 0] >= told[:, 1]) & (told[:, 1] >= 0.0)
        good = is_count & np.isfinite(np.hstack([outer, told])).all(axis=1)
        for name, row, counts, is_good in zip(everyone, outer, told, good, strict=True):
            if is_good:
                head.add(name)
                head._outer[-1], head._told[-1] = row, counts
            else:
                head.bad[name] = "its row is not finite, or its rewards are none"
        for name in set(kept) - set(head.bad):
            head.remove(name)
        return head

    def _gradient(
        self, context: FloatArray, rows: list[int], chosen: int
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return by what ln π(chosen | context) rises with each layer."""
        first = _extended(np.tanh(self._inner @ context))
        second = _extended(np.tanh(self._middle @ first))
        outer = self._outer[rows]
        scores = outer @ second
        shares = np.exp(scores - scores.max())
        by_score = -shares / shares.sum()
        by_score[chosen] += 1.0
        by_second = (by_score @ outer)[:-1] * (1.0 - second[:-1] ** 2)
        by_first = (by_second @ self._middle)[:-1] * (1.0 - first[:-1] ** 2)
        return (
            np.multiply.outer(by_first, context),
            np.multiply.outer(by_second, first),
            np.multiply.outer(by_score, second),
        )

    def _contexts(self, contexts: NDArray[np.floating]) -> FloatArray:
        rows = np.asarray(contexts, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise ConfigurationError(
                f"a context has {self.dimension} numbers; these have shape {rows.shape}"
            )
        return rows

    def _mean_reward(self) -> float:
        count, total = self._told.sum(axis=0)
        return float((total + _PRIOR_REWARDS / 2.0) / (count + _PRIOR_REWARDS))

    def _rows(self, names: Sequence[str]) -> NDArray[np.intp]:
        for name in names:
            if name not in self._names:
                raise UnknownCandidateError(name, self._names)
        return np.array([self._places[name] for name in names], dtype=np.intp)


def _extended(rows: FloatArray) -> FloatArray:
    """Return rows with a constant 1 at their end, which carries a bias."""
    return np.concatenate([rows, np.ones((*rows.shape[:-1], 1))], axis=-1)


def _confidence(told: FloatArray) -> FloatArray:
    count, total = told.T
    mean = (total + _PRIOR_REWARDS / 2.0) / (count + _PRIOR_REWARDS)
    return np.asarray(count / (count + mean * (1.0 - mean) / _PRIOR_VARIANCE))


def _is_like(found: NDArray[Any], pattern: FloatArray) -> bool:
    is_number = found.dtype.kind == "f" and found.shape == pattern.shape
    return is_number and bool(np.isfinite(found).all())
