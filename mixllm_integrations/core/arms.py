"""The arms of a bandit by name: those that compete, and those that were removed.

Adding, removing, merging, learning and saving are the same for every room that
keeps one `RidgeArm` per candidate; what is asked of the arms is theirs. No lock
is taken here: the router holds one.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.arm_arrays import (
    Arrays,
    arms_from_arrays,
    arms_to_arrays,
)
from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.gram import Base
from mixllm_integrations.core.ridge import ArmGroups, RidgeArm, decay_step
from mixllm_integrations.core.types import FloatArray, number_between

__all__ = ["NamedArms"]


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
        self._step = decay_step(self.forgetting)
        self.refused = 0
        self.bad: dict[str, str] = {}
        self._unseen = RidgeArm.start(Base.of(None, self.dimension, l2=self.l2))
        self._arms: dict[str, RidgeArm] = {}
        self._kept: dict[str, RidgeArm] = {}
        self._order: tuple[str, ...] | None = None  # whom the groups are of
        self._groups = ArmGroups([])

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

    def rename(self, old: str, new: str) -> None:
        """Give an arm, competing or removed, another name in the same place.

        Parameters
        ----------
        old, new
            The name that it has, and the one that it gets.

        Raises
        ------
        UnknownCandidateError
            If no arm has the old name.
        ConfigurationError
            If an arm, competing or removed, has the new name already.
        """
        everyone = {**self._arms, **self._kept}
        if old not in everyone:
            raise UnknownCandidateError(old, everyone)
        if new in everyone:
            raise ConfigurationError(f"there is an arm {new!r} already: discard it")
        self._arms = {new if n == old else n: arm for n, arm in self._arms.items()}
        self._kept = {new if n == old else n: arm for n, arm in self._kept.items()}
        self._put({n: arm for n, arm in self._arms.items() if n == new})

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

    def widths(
        self, contexts: NDArray[np.floating], names: Sequence[str]
    ) -> FloatArray:
        """Return how uncertain each arm is about each context.

        Parameters
        ----------
        contexts
            Shape ``(n, dimension)``.
        names
            Which arms; those that share a matrix are computed once.

        Returns
        -------
        FloatArray
            sqrt(xᵀA⁻¹x), shape ``(n, len(names))``: in units of the noise of a
            single observation, the standard deviation of what was learned.

        Raises
        ------
        UnknownCandidateError
            If there is no such arm.
        """
        rows = np.asarray(contexts, dtype=np.float64)
        leverages = self._grouped(names).leverages(rows)
        return np.sqrt(np.maximum(leverages, 0.0, out=leverages), out=leverages).T

    def novelty(
        self, contexts: NDArray[np.floating], names: Sequence[str]
    ) -> FloatArray:
        """Return how far each context is from all that these arms have seen.

        Parameters
        ----------
        contexts
            Shape ``(n, dimension)``.
        names
            Which arms.

        Returns
        -------
        FloatArray
            Leverage of the arm that knows most about the context, divided by the
            mean leverage of that arm's own data, shape ``(n,)``: about 1 for a
            context like those that it has seen, 5 for one that is five times as
            far; NaN where none has seen anything.

        Raises
        ------
        UnknownCandidateError
            If there is no such arm.

        Notes
        -----
        Our choice, for the unseen domains of MixLLM's Table 3. The mean leverage
        is trace(A⁻¹(A - l2·I)) / n; it follows the arm's data up to the latest
        few.
        """
        return self.novelty_from(self.widths(contexts, names), names)

    def novelty_from(self, widths: FloatArray, names: Sequence[str]) -> FloatArray:
        """Return `novelty`, from what `widths` gave.

        Parameters
        ----------
        widths
            Of the contexts, shape ``(n, len(names))``.
        names
            The arms of the columns.

        Returns
        -------
        FloatArray
            As `novelty`.

        Raises
        ------
        UnknownCandidateError
            If there is no such arm.
        """
        usual = np.array([arm.usual_leverage for arm in self._arms_of(names)])
        known = np.flatnonzero(usual > 0.0)
        if not known.size:
            return np.full(len(widths), np.nan)
        best = known[widths[:, known].argmin(axis=1)]
        return np.asarray(widths[np.arange(len(widths)), best] ** 2 / usual[best])

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
                done[key] = (
                    arm if more.is_unseen else arm.plus(more.seen(), more.moment)
                )
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
                new = old.observe(
                    row,
                    target=target,
                    weight=weight,
                    keep=self.forgetting,
                    step=self._step,
                )
        except ConfigurationError:
            self.refused += 1
            return False
        self._replace(name, new)
        return True

    def _replace(self, name: str, arm: RidgeArm) -> None:
        """Put a newer state of an arm in, and only that into what is derived."""
        self._arms[name] = arm
        if self._order is not None and name in self._order:
            self._groups.swap(self._order.index(name), arm)

    def _put(self, arms: Mapping[str, RidgeArm]) -> None:
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

    def _grouped(self, names: Sequence[str]) -> ArmGroups:
        if names is not self._order:
            self._groups = ArmGroups(self._arms_of(names))
            self._order = names if isinstance(names, tuple) else None
        return self._groups

    def _contexts(self, contexts: NDArray[np.floating]) -> FloatArray:
        rows = np.asarray(contexts, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise ConfigurationError(
                f"a context has {self.dimension} numbers; these have shape {rows.shape}"
            )
        if not np.isfinite(rows).all():
            raise ConfigurationError("a context is not finite")
        return rows
