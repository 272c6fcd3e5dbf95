"""Ridge regression of one arm, exact at every step: its matrix and its solution.

An arm's matrix is A = l2·I + the sum of weight·xxᵀ over the contexts x it was
seen with; its moment is b = the sum of weight·target·x. Asked for are the
leverage xᵀA⁻¹x and the solution A⁻¹b.

Older data stand as a `Base`, which arms that saw the same rows share; the few
contexts since are a tail of low rank on top, so that an update costs O(d²). A
tail that has grown long is merged into a new base.

With forgetting, data decay but the floor l2·I does not, which takes a new base.
Until there is one, new contexts weigh more instead: the data stand to each other
as they should at every update, and to the floor at every new base.

Arms are values: an update makes a new one, so that a refused update leaves
nothing behind and no arm can touch another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.gram import Base, Gram, pack
from mixllm_integrations.core.types import FloatArray

__all__ = ["ArmGroups", "RidgeArm", "decay_step"]

_LONGEST_STEP = 16  # our choice: a short query, little memory, few new bases
_LARGEST_DECAY = 0.1  # of all data alike, that may be due
_LARGEST_MASS = 1e12  # times l2: a longer context would drown the ridge in rounding


@dataclass(frozen=True, slots=True, eq=False)
class RidgeArm:
    """The matrix of a base + the sum of weight·xxᵀ over a tail, and a moment.

    Parameters
    ----------
    base
        Older data, perhaps shared with other arms.
    moment
        b, shape ``(d,)``.
    tail, weights
        Contexts since, shape ``(m, d)``, and what each counts, ``(m,)``.
    known
        P, shape ``(m, d)``, such that A⁻¹ = Tᵀ(I - PᵀP)T with T of the base:
        with V the turned tail and W the weights, PᵀP = Vᵀ(W⁻¹ + VVᵀ)⁻¹V
        (Woodbury; Sherman-Morrison row by row).
    """

    base: Base
    moment: FloatArray
    tail: FloatArray
    weights: FloatArray
    known: FloatArray

    @classmethod
    def start(cls, base: Base, *, moment: FloatArray | None = None) -> "RidgeArm":
        """Return an arm without a tail; a moment left out is 0."""
        nothing = np.zeros((0, base.dimension))
        if moment is None:
            moment = np.zeros(base.dimension)
        return cls(base, moment, nothing, np.zeros(0), nothing)

    @property
    def is_unseen(self) -> bool:
        """Whether it holds no data at all."""
        return self.base.gram is None and not len(self.tail)

    @property
    def usual_leverage(self) -> float:
        """Mean of xᵀA⁻¹x over its own data, trace(A⁻¹(A - l2·I)) / their count.

        NaN if there are none. A tail on top of a base is left out, so that it
        changes with the base only.
        """
        if self.base.count > 0.0:
            return self.base.freedom / self.base.count
        if self.base.gram is None and len(self.tail):
            known = self.known.reshape(-1)
            return float(known @ known) / float(self.weights.sum())
        return np.nan

    def gram(self) -> FloatArray:
        """Return A - l2·I, shape ``(d, d)``, a copy."""
        lower = np.tril(self._lower())
        return np.asarray(lower + np.tril(lower, -1).T)

    def seen(self) -> Gram | None:
        """Return A - l2·I, packed and shared if possible; ``None``: no data."""
        if not len(self.tail) and self.base.share == 1.0:
            return self.base.gram
        return Gram(pack(self._lower()), self._count())

    def solution(self) -> FloatArray:
        """Return A⁻¹b, shape ``(d,)``."""
        return self.base.turn_back(self._unknown(self.base.turn(self.moment)))

    def plus(self, more: Gram | None, moment: FloatArray | None = None) -> "RidgeArm":
        """Return the arm with more data, given as their sums, and no tail."""
        total = self.seen()
        if total is None or more is None:
            total = total or more
        else:
            total = Gram(total.packed + more.packed, total.count + more.count)
        moment = self.moment if moment is None else self.moment + moment
        base = Base.of(total, self.base.dimension, l2=self.base.l2)
        return RidgeArm.start(base, moment=moment)

    def observe(
        self,
        context: FloatArray,
        *,
        target: float,
        weight: float,
        keep: float = 1.0,
        step: int = _LONGEST_STEP,
    ) -> "RidgeArm":
        """Return the arm with one more context.

        Parameters
        ----------
        context, target, weight
            What is added: weight·xxᵀ, and weight·target·x to the moment.
        keep
            What older data are multiplied by per observation.
        step
            After how many there is a new base, see `decay_step`.

        Raises
        ------
        ConfigurationError
            If its matrix would be infinite or indefinite.
        """
        since = len(self.tail) + 1
        decay = keep**since
        if since < step:
            weight, decay = weight / decay, 1.0
        moment = decay * self.moment + weight * target * context
        mass = weight * float(context @ context)
        if not (mass <= _LARGEST_MASS * self.base.l2 and np.isfinite(moment).all()):
            raise ConfigurationError("the context or its target is too large")
        if since < step:
            return self._appended(context, weight, moment)
        lower = decay * self._lower() + weight * np.multiply.outer(context, context)
        gram = Gram(pack(lower), decay * self._count() + weight)
        base = Base.of(gram, self.base.dimension, l2=self.base.l2)
        return RidgeArm.start(base, moment=moment)

    def _appended(
        self, context: FloatArray, weight: float, moment: FloatArray
    ) -> "RidgeArm":
        turned = self.base.turn(context)
        fresh = self._unknown(turned)
        row = fresh / math.sqrt(1.0 / weight + max(float(turned.dot(fresh)), 0.0))
        return RidgeArm(
            self.base,
            moment,
            np.concatenate((self.tail, context[None])),
            np.concatenate((self.weights, (weight,))),
            np.concatenate((self.known, row[None])),
        )

    def _count(self) -> float:
        return self.base.count + float(self.weights.sum())

    def _lower(self) -> FloatArray:
        """Return A - l2·I, of which only the lower triangle is right."""
        older = self.base.seen()
        if len(self.tail):
            older += (self.tail.T * self.weights) @ self.tail
        return older

    def _unknown(self, turned: FloatArray) -> FloatArray:
        if not len(self.known):
            return turned
        return np.asarray(turned - self.known.dot(turned).dot(self.known))


def decay_step(keep: float) -> int:
    """Return after how many observations data are to decay, all at once.

    Decay takes a new base, which costs O(d³): so they decay after up to 16, as
    long as they do not count more than about a tenth too much until then.

    Parameters
    ----------
    keep
        What they are multiplied by per observation, in (0, 1].
    """
    if keep == 1.0:
        return _LONGEST_STEP
    most = math.log1p(-_LARGEST_DECAY) / math.log(keep)
    return min(max(int(most), 1), _LONGEST_STEP)


@dataclass(slots=True)
class _Group:
    """The arms of one base: their columns, and what those with a tail know beside."""

    base: Base
    columns: list[int] = field(default_factory=list)
    tails: dict[int, FloatArray] = field(default_factory=dict)


class ArmGroups:
    """Some arms by the base that they share, which is asked once.

    Parameters
    ----------
    arms
        In the order of the columns.
    """

    def __init__(self, arms: Sequence[RidgeArm]) -> None:
        self._bases = [arm.base for arm in arms]
        self.groups: dict[int, _Group] = {}
        for column, arm in enumerate(arms):
            self._join(column, arm)

    def _join(self, column: int, arm: RidgeArm) -> None:
        group = self.groups.setdefault(id(arm.base), _Group(arm.base))
        group.columns.append(column)
        if len(arm.known):
            group.tails[column] = arm.known

    def swap(self, column: int, arm: RidgeArm) -> None:
        """Put a newer state of an arm in.

        Parameters
        ----------
        column
            Which arm.
        arm
            What it is now.
        """
        key = id(self._bases[column])
        group = self.groups[key]
        if arm.base is group.base and len(arm.known):
            group.tails[column] = arm.known
            return
        group.columns.remove(column)
        group.tails.pop(column, None)
        if not group.columns:
            del self.groups[key]
        self._bases[column] = arm.base
        self._join(column, arm)

    def leverages(self, contexts: FloatArray) -> FloatArray:
        """Return xᵀA⁻¹x of every arm and context, shape ``(n_arms, n)``.

        Parameters
        ----------
        contexts
            Shape ``(n, dimension)``.
        """
        if len(contexts) == 1:  # what every decision asks for; half the time
            return self._leverages_of_one(contexts[0])
        found = np.empty((len(self._bases), len(contexts)))
        for group in self.groups.values():
            turned = group.base.turn(contexts)
            found[group.columns] = np.einsum("nd,nd->n", turned, turned)
            for column, known in group.tails.items():
                rows = turned @ known.T
                found[column] -= np.einsum("nm,nm->n", rows, rows)
        return found

    def _leverages_of_one(self, context: FloatArray) -> FloatArray:
        found = [0.0] * len(self._bases)
        for group in self.groups.values():
            turned = group.base.turn(context)
            length = float(turned.dot(turned))
            for column in group.columns:
                found[column] = length
            for column, known in group.tails.items():
                seen = known.dot(turned)
                found[column] -= float(seen.dot(seen))
        return np.array(found)[:, None]
