"""The arms of a bandit by name: those that compete, and those that were removed.

Adding, removing, merging, learning and saving are the same for every room that
keeps one `RidgeArm` per candidate; what is asked of the arms is theirs. No lock
is taken here: the router holds one.
"""

from collections.abc import Sequence
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.ridge import (
    Arrays,
    RidgeArm,
    Spectrum,
    arms_from_arrays,
    arms_to_arrays,
)
from mixllm_integrations.core.types import FloatArray, number_between

__all__ = ["ArmGroups", "NamedArms"]

# Scale, columns of all arms that have it, and what those with a tail know beside.
_Group: TypeAlias = tuple[FloatArray, NDArray[np.intp], dict[int, FloatArray]]


class NamedArms:
    """Arms by name: the ones that compete, and the ones that were removed."""

    def __init__(self, dimension: int, *, l2: float, forgetting: float) -> None:
        self.dimension = int(
            number_between(dimension, "dimension", low=1, high_is_allowed=False)
        )
        self.l2 = number_between(l2, "l2", low_is_allowed=False, high_is_allowed=False)
        self.forgetting = number_between(
            forgetting, "forgetting", high=1.0, low_is_allowed=False
        )
        self.refused = 0
        self.bad: dict[str, str] = {}
        self._unseen = RidgeArm.start(Spectrum.of(None, self.dimension), l2=self.l2)
        self._arms: dict[str, RidgeArm] = {}
        self._kept: dict[str, RidgeArm] = {}
        self._order: Sequence[str] | None = None  # what is derived is of these names

    @property
    def names(self) -> tuple[str, ...]:
        """The arms, in the order in which they were added."""
        return tuple(self._arms)

    @property
    def kept(self) -> tuple[str, ...]:
        """Removed arms whose statistics are kept."""
        return tuple(self._kept)

    def add(self, name: str) -> None:
        """Add an arm: unseen, or as it was when it was removed.

        Parameters
        ----------
        name
            Its name.

        Raises
        ------
        ConfigurationError
            If there is one of that name.
        """
        if name in self._arms:
            raise ConfigurationError(f"there is an arm {name!r} already")
        self._put({name: self._kept.pop(name, self._unseen)})

    def remove(self, name: str) -> None:
        """Remove an arm and keep its statistics, so that it can come back.

        Parameters
        ----------
        name
            Its name.

        Raises
        ------
        UnknownCandidateError
            If there is no such arm.
        """
        self._kept[name] = self._arm(name)
        del self._arms[name]
        self._put({})

    def discard(self, name: str) -> None:
        """Forget an arm and its statistics; nothing happens if there is none.

        Parameters
        ----------
        name
            Its name.
        """
        self._arms.pop(name, None)
        self._kept.pop(name, None)
        self._put({})

    def gram(self, name: str) -> FloatArray:
        """Return what an arm has seen.

        Parameters
        ----------
        name
            Which arm.

        Returns
        -------
        FloatArray
            A - l2·I, shape ``(dimension, dimension)``, a copy.
        """
        return self._arm(name).gram()

    def merge(self, other: Self) -> None:
        """Add what other arms have seen to the arms of the same names.

        The result is that of the union of the data. What both have seen counts
        twice: a worker sends its own increments, started without offline data.

        Parameters
        ----------
        other
            Of the same dimension and ridge; unchanged.

        Raises
        ------
        ConfigurationError
            If they differ in dimension or ridge, or one of them forgets: what
            has decayed at different times is no sum.
        """
        mine = (self.dimension, self.l2, self.forgetting)
        theirs = (other.dimension, other.l2, other.forgetting)
        if mine != theirs or self.forgetting < 1.0:
            raise ConfigurationError(
                "only arms of the same (dimension, l2, forgetting) with forgetting 1 "
                f"can be merged, not {mine} and {theirs}"
            )
        done: dict[tuple[int, int], RidgeArm] = {}
        summed: dict[str, RidgeArm] = {}
        for name, more in {**other._kept, **other._arms}.items():
            arm = self._arms.get(name) or self._kept.get(name) or self._unseen
            key = (id(arm), id(more))
            if key not in done:
                done[key] = arm if more.is_unseen else _sum(arm, more)
            summed[name] = done[key]
        is_kept = {
            n
            for n in summed
            if n in self._kept or n not in {**self._arms, **other._arms}
        }
        self._kept.update({n: summed[n] for n in summed if n in is_kept})
        self._put({n: summed[n] for n in summed if n not in is_kept})

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return the statistics of all arms, the removed ones included.

        Returns
        -------
        dict of str to array
            For `from_state`, together with `names` and `kept`. Matrices that
            arms share are stored once.
        """
        return arms_to_arrays([*self._arms.values(), *self._kept.values()])

    @classmethod
    def from_state(
        cls,
        state: Arrays,
        *,
        names: Sequence[str],
        kept: Sequence[str] = (),
        dimension: int,
        **settings: float,
    ) -> Self:
        """Return the arms that `state` gave, without those that are damaged.

        Parameters
        ----------
        state
            What `state` returned.
        names, kept
            As they were then.
        dimension, settings
            As for the class.

        Returns
        -------
        Self
            The arms; `bad` says which were left out, and why.

        Raises
        ------
        StateFormatError
            If it cannot be told which statistics belong to which arm.
        """
        arms = cls(dimension, **settings)
        arms._restore(state, names, kept)
        return arms

    def _restore(
        self, state: Arrays, names: Sequence[str], kept: Sequence[str]
    ) -> None:
        found = arms_from_arrays(
            state,
            len(names) + len(kept),
            dimension=self.dimension,
            l2=self.l2,
            keep=self.forgetting,
        )
        good = dict[str, RidgeArm]()
        for name, arm in zip((*names, *kept), found, strict=True):
            if isinstance(arm, str):
                self.bad[name] = arm
            else:
                good[name] = arm
        self._kept = {n: good[n] for n in kept if n in good}
        self._put({n: good[n] for n in names if n in good})

    def _learn(
        self,
        name: str,
        context: NDArray[np.floating],
        *,
        target: float,
        weight: float,
    ) -> bool:
        old = self._arm(name)
        row = self._contexts(np.asarray(context)[None])[0]
        limits = {"low_is_allowed": False, "high_is_allowed": False}
        weight = number_between(weight, "weight", **limits)
        try:
            with np.errstate(all="ignore"):
                mass = weight * float(row @ row)
                new = old.observe(
                    row, target=target, weight=weight, keep=self.forgetting
                )
        except (np.linalg.LinAlgError, ConfigurationError):
            mass = np.inf
        if not (np.isfinite(mass) and new.is_sound()):
            self.refused += 1
            return False
        order = self._order
        self._put({name: new})
        if order is not None and name in order and self._swap(order.index(name), name):
            self._order = order
        return True

    def _swap(self, column: int, name: str) -> bool:  # noqa: ARG002
        """Bring one column of what is derived up to date; tell if that was enough."""
        return False

    def _put(self, arms: dict[str, RidgeArm]) -> None:
        """Swap arms in; called on every change, so that what is derived follows."""
        self._arms.update(arms)
        self._order = None

    def _arm(self, name: str) -> RidgeArm:
        try:
            return self._arms[name]
        except KeyError:
            raise UnknownCandidateError(name, self._arms) from None

    def _arms_of(self, names: Sequence[str]) -> list[RidgeArm]:
        try:
            return [self._arms[name] for name in names]
        except KeyError as error:
            raise UnknownCandidateError(error.args[0], self._arms) from None

    def _contexts(self, contexts: NDArray[np.floating]) -> FloatArray:
        rows = np.asarray(contexts, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise ConfigurationError(
                f"a context has {self.dimension} numbers; these have shape {rows.shape}"
            )
        if not np.isfinite(rows).all():
            raise ConfigurationError("a context is not finite")
        return rows


def _sum(arm: RidgeArm, more: RidgeArm) -> RidgeArm:
    return arm.plus(more.gram(), more.moment)


class ArmGroups:
    """Some arms by what they share: axes turn once, a scale applies once.

    Parameters
    ----------
    arms
        In the order of the columns.

    Attributes
    ----------
    spectra
        Each spectrum with the groups of arms that have it.
    """

    def __init__(self, arms: Sequence[RidgeArm]) -> None:
        self._arms = list(arms)
        alike: dict[tuple[int, float], list[int]] = {}
        for column, arm in enumerate(self._arms):
            alike.setdefault((id(arm.spectrum), arm.share), []).append(column)
        spectra: dict[int, tuple[Spectrum, list[_Group]]] = {}
        self._tails: dict[int, dict[int, FloatArray]] = {}  # of the group of a column
        for columns in alike.values():
            first = self._arms[columns[0]]
            known = ((c, self._arms[c].known) for c in columns)
            tails = {column: rows for column, rows in known if len(rows)}
            self._tails.update(dict.fromkeys(columns, tails))
            group = first.scale, np.array(columns, dtype=np.intp), tails
            key = id(first.spectrum)
            spectra.setdefault(key, (first.spectrum, []))[1].append(group)
        self.spectra = list(spectra.values())

    def swap(self, column: int, arm: RidgeArm) -> bool:
        """Put a newer state of an arm in; ``False`` if it left its group.

        Parameters
        ----------
        column
            Which arm.
        arm
            What it is now.
        """
        old = self._arms[column]
        if arm.spectrum is not old.spectrum or arm.share != old.share:
            return False
        self._arms[column] = arm
        self._tails[column][column] = arm.known
        return True

    def leverages(self, contexts: FloatArray) -> FloatArray:
        """Return xᵀA⁻¹x of every arm and context, shape ``(n_arms, n)``.

        Parameters
        ----------
        contexts
            Shape ``(n, dimension)``.
        """
        found = np.empty((len(self._arms), len(contexts)))
        for spectrum, groups in self.spectra:
            turned = spectrum.turn(contexts)
            for scale, columns, tails in groups:
                scaled = turned * scale
                found[columns] = np.einsum("nd,nd->n", scaled, scaled)
                for column, known in tails.items():
                    found[column] -= _taken_off(scaled, known)
        return found


def _taken_off(scaled: FloatArray, known: FloatArray) -> FloatArray | float:
    """Return by how much a tail lowers each leverage: the squared length of P·row."""
    if len(scaled) == 1:  # what every decision asks for; a third of the time
        seen = known @ scaled[0]
        return float(seen @ seen)
    rows = scaled @ known.T
    return np.asarray(np.einsum("nm,nm->n", rows, rows))
