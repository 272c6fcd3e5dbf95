"""What heads can be fitted from again: labelled contexts, offline and online.

Prompts are not kept. Offline labels stay as they were given; what feedback
taught since is a ring of so many observations. Takes no lock: the router holds
one.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.types import FloatArray

__all__ = ["Observations", "Replay", "ReplayTable"]

_FIRST_SIZE = 256
_NOBODY = -1
_COLUMNS = ("expected", "surprise", "weight", "tokens")


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """What feedback said of one candidate's answers.

    Parameters
    ----------
    names
        Who answered, one per row.
    contexts
        Shape ``(n, dimension)``.
    targets
        Quality of each answer as the feedback has it.
    weights
        What each counts beside a measured quality.
    """

    names: tuple[str, ...]
    contexts: FloatArray
    targets: FloatArray
    weights: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ReplayTable:
    """Everything to fit from, as matrices.

    Parameters
    ----------
    names
        The columns.
    contexts
        Shape ``(n, dimension)``.
    quality, tokens
        Labels, shape ``(n, len(names))``, NaN where there is none.
    mark
        How many observations it holds that were ever made.
    """

    names: tuple[str, ...]
    contexts: FloatArray
    quality: FloatArray
    tokens: FloatArray
    mark: int


class Replay:
    """Labelled contexts of a router.

    Parameters
    ----------
    dimension
        Length of a context.
    capacity
        How many observations are kept; one more overwrites the oldest.

    Attributes
    ----------
    mark
        How many observations were ever made.
    is_whole
        Whether the labels of all offline heads are there: not after a compact
        save.
    """

    def __init__(self, dimension: int, *, capacity: int = 20_000) -> None:
        self._dimension, self._capacity = dimension, capacity
        self._labels: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._offline = np.zeros((0, dimension), np.float32)
        self._places: dict[str, int] = {}
        self._who = np.zeros(0, np.int32)
        self._contexts = np.zeros((0, dimension), np.float32)
        self._numbers = np.zeros((0, len(_COLUMNS)), np.float32)
        self.mark = 0
        self.is_whole = True

    def __len__(self) -> int:
        return min(self.mark, self._capacity)

    def start(
        self,
        names: Sequence[str],
        contexts: FloatArray,
        quality: FloatArray,
        tokens: FloatArray,
    ) -> None:
        """Take the labels of some candidates in the place of all that was known.

        Parameters
        ----------
        names
            The candidates of the columns.
        contexts
            Shape ``(n, dimension)``.
        quality, tokens
            Shape ``(n, len(names))``, NaN where unlabelled.
        """
        for name in names:
            self.discard(name)
        before = len(self._offline)
        self._offline = np.vstack((self._offline, contexts.astype(np.float32)))
        gap = np.full(len(contexts), np.nan, np.float32)
        self._labels = {
            name: (np.append(q, gap), np.append(t, gap))
            for name, (q, t) in self._labels.items()
        }
        gap = np.full(before, np.nan, np.float32)
        for name, q, t in zip(names, quality.T, tokens.T, strict=True):
            self._labels[name] = (
                np.append(gap, q.astype(np.float32)),
                np.append(gap, t.astype(np.float32)),
            )
        self._drop_unlabelled()

    def add(
        self,
        name: str,
        context: NDArray[np.floating],
        *,
        expected: float,
        surprise: float,
        weight: float,
        tokens: float = np.nan,
    ) -> None:
        """Note what feedback said of one answer.

        Parameters
        ----------
        name
            Who answered.
        context
            Shape ``(dimension,)``.
        expected, surprise
            Quality that was expected of it, and how much better it was.
        weight
            What the surprise counts beside that of a measured quality.
        tokens
            Length of the answer; NaN: unknown.
        """
        place = self.mark % self._capacity
        if place >= len(self._who):
            self._grow()
        if name not in self._places:
            self._places[name] = max(self._places.values(), default=_NOBODY) + 1
        self._who[place] = self._places[name]
        self._contexts[place] = context
        self._numbers[place] = expected, surprise, weight, tokens
        self.mark += 1

    def since(self, mark: int) -> Observations:
        """Return the observations that were made after so many, oldest first.

        Parameters
        ----------
        mark
            As `mark` was then.
        """
        return self._observations(self._ordered()[max(mark - self._first(), 0) :])

    def copied(self) -> "Replay":
        """Return all that is known now, for who reads it while more is observed."""
        found, n = copy(self), len(self)
        vars(found).update(
            _labels={k: (q.copy(), t.copy()) for k, (q, t) in self._labels.items()},
            _places=dict(self._places),
            _who=self._who[:n].copy(),
            _contexts=self._contexts[:n].copy(),
            _numbers=self._numbers[:n].copy(),
        )
        return found

    def labels(self, name: str) -> int:
        """Return how many labels and observations there are of a candidate.

        Parameters
        ----------
        name
            Whose.
        """
        quality = self._labels.get(name)
        offline = 0 if quality is None else int(np.isfinite(quality[0]).sum())
        who, place = self._who[: len(self)], self._places.get(name)
        online = 0 if place is None else int(np.count_nonzero(who == place))
        return offline + online

    def forget(self, name: str, *, keep: int = 0) -> None:
        """Drop what is known of a candidate that is not what it was.

        Parameters
        ----------
        name
            Whose.
        keep
            How many of its last observations stay.
        """
        own = self._of(name)
        self._who[own[: max(len(own) - keep, 0)]] = _NOBODY
        if name in self._labels:
            for part in self._labels[name]:
                part[:] = np.nan
            self._drop_unlabelled()

    def discard(self, name: str) -> None:
        """Drop all that is known of a candidate.

        Parameters
        ----------
        name
            Whose.
        """
        self.forget(name)
        self._labels.pop(name, None)

    def rename(self, old: str, new: str) -> None:
        """Let what is known of one candidate be of another name.

        Parameters
        ----------
        old, new
            Its names.
        """
        self.discard(new)
        if old in self._labels:
            self._labels[new] = self._labels.pop(old)
        if old in self._places:
            self._places[new] = self._places.pop(old)

    def table(self, names: Sequence[str]) -> ReplayTable:
        """Return everything that is known of some candidates.

        Parameters
        ----------
        names
            The columns.
        """
        rows = self._ordered()
        n, m = len(self._offline), len(rows)
        quality, tokens = np.full((2, n + m, len(names)), np.nan)
        for column, name in enumerate(names):
            if name in self._labels:
                quality[:n, column], tokens[:n, column] = self._labels[name]
            own = np.flatnonzero(self._who[rows] == self._places.get(name, _NOBODY - 1))
            expected, surprise, weight, length = self._numbers[rows[own]].T
            # One satisfied user is not a grade of 1: what says less moves less.
            quality[n + own, column] = expected + surprise * np.minimum(weight, 1.0)
            tokens[n + own, column] = length
        contexts = np.vstack((self._offline, self._contexts[rows])).astype(np.float64)
        known = np.isfinite(quality).any(axis=1)
        return ReplayTable(
            tuple(names), contexts[known], quality[known], tokens[known], self.mark
        )

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return everything, as JSON and arrays; contexts in half precision."""
        rows = self._ordered()
        names = list(self._labels)
        state: dict[str, Any] = {
            "names": names,
            "places": dict(self._places),
            "is_whole": self.is_whole,
        }
        labels = np.reshape(
            [np.stack(self._labels[n]) for n in names],
            (len(names), 2, len(self._offline)),
        )
        arrays: dict[str, NDArray[Any]] = {
            "offline": self._offline.astype(np.float16),
            "labels": labels.astype(np.float32),
            "who": self._who[rows],
            "contexts": self._contexts[rows].astype(np.float16),
            "numbers": self._numbers[rows],
        }
        return state, arrays

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        *,
        dimension: int,
        capacity: int = 20_000,
    ) -> "Replay":
        """Return what `state` gave.

        Parameters
        ----------
        state, arrays
            What it returned.
        dimension, capacity
            As for the class.

        Raises
        ------
        StateFormatError
            If its parts do not fit each other.
        """
        replay = cls(dimension, capacity=capacity)
        names, places = list(state["names"]), dict(state["places"])
        offline, labels = arrays["offline"], arrays["labels"]
        who, contexts = arrays["who"][-capacity:], arrays["contexts"][-capacity:]
        numbers = arrays["numbers"][-capacity:]
        fits = (
            offline.shape[1:] == (dimension,)
            and labels.shape == (len(names), 2, len(offline))
            and contexts.shape == (len(who), dimension)
            and numbers.shape == (len(who), len(_COLUMNS))
            and np.isfinite(offline).all()
            and np.isfinite(contexts).all()
            and np.isfinite(numbers[:, :3]).all()
            and set(who.tolist()) <= {_NOBODY, *places.values()}
        )
        if not fits:
            raise StateFormatError("what heads are fitted from again is damaged")
        replay._offline = offline.astype(np.float32)
        replay._labels = {
            n: (q.astype(np.float32), t.astype(np.float32))
            for n, (q, t) in zip(names, labels, strict=True)
        }
        replay._places = {str(n): int(p) for n, p in places.items()}
        replay._who = who.astype(np.int32)
        replay._contexts = contexts.astype(np.float32)
        replay._numbers = numbers.astype(np.float32)
        replay.mark, replay.is_whole = len(who), bool(state["is_whole"])
        return replay

    def _first(self) -> int:
        return max(self.mark - self._capacity, 0)

    def _ordered(self) -> NDArray[np.intp]:
        """Return the places of all observations, oldest first."""
        return np.arange(self._first(), self.mark) % self._capacity

    def _of(self, name: str) -> NDArray[np.intp]:
        place = self._places.get(name)
        if place is None:
            return np.zeros(0, np.intp)
        rows = self._ordered()
        own: NDArray[np.intp] = rows[self._who[rows] == place]
        return own

    def _observations(self, rows: NDArray[np.intp] | list[int]) -> Observations:
        places = np.asarray(rows, dtype=np.intp)
        places = places[self._who[places] != _NOBODY]
        by_place = {place: name for name, place in self._places.items()}
        numbers = self._numbers[places].astype(np.float64)
        return Observations(
            tuple(by_place[p] for p in self._who[places].tolist()),
            self._contexts[places].astype(np.float64),
            numbers[:, 0] + numbers[:, 1],
            numbers[:, 2],
        )

    def _grow(self) -> None:
        size = min(max(2 * len(self._who), _FIRST_SIZE), self._capacity)
        more = size - len(self._who)
        self._who = np.append(self._who, np.full(more, _NOBODY, np.int32))
        empty = np.zeros((more, self._dimension), np.float32)
        self._contexts = np.vstack((self._contexts, empty))
        none = np.zeros((more, len(_COLUMNS)), np.float32)
        self._numbers = np.vstack((self._numbers, none))

    def _drop_unlabelled(self) -> None:
        """Drop offline rows that nobody has a label of any more."""
        if not self._labels:
            self._offline = self._offline[:0]
            return
        known = np.isfinite([q for q, _ in self._labels.values()]).any(axis=0)
        if not known.all():
            self._offline = self._offline[known]
            self._labels = {
                n: (q[known], t[known]) for n, (q, t) in self._labels.items()
            }
