"""Stage 6: how little each arm was seen near a query, and what it learned since.

`DesignMatrices` gives the uncertainty sqrt(xᵀA⁻¹x) that the policy explores by;
`ResidualHeads` learn online, by recursive least squares, what the offline heads
still get wrong. Both keep one `RidgeArm` per candidate (here: arm), and no lock.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.arms import NamedArms
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.gram import Base, Gram, pack
from mixllm_integrations.core.ridge import RidgeArm
from mixllm_integrations.core.types import FloatArray, number_between

__all__ = ["DesignMatrices", "ResidualHeads"]


class DesignMatrices(NamedArms):
    """One design matrix per arm: what it has seen, so how uncertain it is.

    Parameters
    ----------
    dimension
        Length of a context.
    l2
        Ridge: the matrix of an unseen arm is ``l2 * identity``.
    forgetting
        What an arm's data are multiplied by at each of its own observations,
        in (0, 1]; 1 forgets nothing. The ridge never decays. Up to 16 such
        decays come at once: until then, all data count the same factor too
        much, at most a tenth.

    Attributes
    ----------
    refused
        How many observations were refused because the matrix would have
        become infinite or indefinite.
    bad
        After `from_state`: which arms were left out, and why.

    Raises
    ------
    ConfigurationError
        If a setting cannot be used.

    Notes
    -----
    Source: MixLLM Eq. 9 (there without the root) and its updates of A offline
    and online. What multiplies the width is the policy's.

    Examples
    --------
    >>> matrices = DesignMatrices(2, l2=4.0)
    >>> matrices.add("new")
    >>> matrices.widths(np.array([[1.0, 0.0]]), ["new"]).tolist()  # sqrt(1 / 4)
    [[0.5]]
    """

    def __init__(
        self, dimension: int, *, l2: float = 1.0, forgetting: float = 1.0
    ) -> None:
        super().__init__(dimension, l2=l2, forgetting=forgetting)

    def seen(self, name: str) -> Gram | None:
        """Return what `ResidualHeads.start` can share with this arm.

        Parameters
        ----------
        name
            Which arm.

        Returns
        -------
        Gram or None
            All that the arm has seen, its latest observations included; ``None``
            if that is nothing.

        Raises
        ------
        UnknownCandidateError
            If there is no such arm.
        """
        return self._arm(name).seen()

    def accumulate(
        self,
        contexts: NDArray[np.floating],
        labelled: NDArray[np.bool_],
        names: Sequence[str],
    ) -> None:
        """Add offline contexts to the arms that were labelled on them.

        Nothing decays. Arms that were equal and get the same rows share one
        matrix.

        Parameters
        ----------
        contexts
            Shape ``(n, dimension)``.
        labelled
            Which row counts for which arm, shape ``(n, len(names))``.
        names
            The arms of the columns.

        Raises
        ------
        UnknownCandidateError
            If there is no such arm.
        ConfigurationError
            If shapes do not fit or a context is not finite.
        """
        rows = self._contexts(contexts)
        mask = np.asarray(labelled, dtype=np.bool_)
        if mask.shape != (len(rows), len(names)):
            raise ConfigurationError(
                f"`labelled` needs shape {(len(rows), len(names))}, not {mask.shape}"
            )
        products: dict[bytes, Gram] = {}
        fresh: dict[tuple[int, bytes], RidgeArm] = {}
        grown: dict[str, RidgeArm] = {}
        for name, column in zip(names, mask.T, strict=True):
            old, which = self._arm(name), column.tobytes()
            if not column.any():
                continue
            if which not in products:
                products[which] = _sum_of(rows[column])
            if (id(old), which) not in fresh:
                fresh[id(old), which] = old.plus(products[which])
            grown[name] = fresh[id(old), which]
        self._put(grown)

    def observe(
        self, name: str, context: NDArray[np.floating], *, weight: float = 1.0
    ) -> bool:
        """Add one context to one arm, after its older data have decayed.

        Parameters
        ----------
        name
            Which arm.
        context
            Shape ``(dimension,)``.
        weight
            What it counts, above 0.

        Returns
        -------
        bool
            Whether it was taken; a refusal changes nothing and is counted.

        Raises
        ------
        UnknownCandidateError
            If there is no such arm.
        ConfigurationError
            If the context has another shape or is not finite.
        """
        return self._learn(name, context, target=0.0, weight=weight)


class ResidualHeads(NamedArms):
    """One linear head per arm, for what its offline head still gets wrong.

    Parameters
    ----------
    dimension
        Length of a context.
    l2
        Ridge of the heads.
    offline_share
        Share of the offline data that stands behind a head from its `start`,
        as if those residuals had been 0: the more, the slower it learns.
    forgetting
        As for `DesignMatrices`.

    Attributes
    ----------
    refused
        How many updates were refused because a number would have become
        infinite, or the matrix indefinite.
    bad
        After `from_state`: which arms were left out, and why.

    Raises
    ------
    ConfigurationError
        If a setting cannot be used.

    Notes
    -----
    Our choice, for MixLLM's online training with refined feedback: a forest
    cannot learn from one observation, a linear head of its residual can.

    Examples
    --------
    >>> heads = ResidualHeads(1)
    >>> heads.add("a")
    >>> heads.update("a", np.array([1.0]), 0.5)
    True
    >>> heads.correct(np.array([[2.0]]), ["a"]).round(9).tolist()  # 2·0.5/(1+1)
    [[0.5]]
    """

    def __init__(
        self,
        dimension: int,
        *,
        l2: float = 1.0,
        offline_share: float = 0.0,
        forgetting: float = 1.0,
    ) -> None:
        super().__init__(dimension, l2=l2, forgetting=forgetting)
        self.offline_share = number_between(offline_share, "offline_share", high=1.0)
        self._solutions: dict[str, FloatArray | None] = {}  # None: all 0
        self._taught: tuple[list[int], FloatArray] = [], np.zeros((0, dimension))
        self._taught_order: tuple[str, ...] | None = None

    def start(self, name: str, gram: FloatArray | Gram | None) -> None:
        """Forget what a head has learned: its offline head is new.

        Parameters
        ----------
        name
            Which arm.
        gram
            What the offline head was trained on: sum of xxᵀ, shape
            ``(dimension, dimension)``, or `DesignMatrices.seen`, which is
            shared instead of copied; ``None``: nothing.

        Raises
        ------
        UnknownCandidateError
            If there is no such arm.
        ConfigurationError
            If it is no Gram matrix of this dimension.
        """
        self._arm(name)
        if isinstance(gram, np.ndarray):
            gram = Gram.of(gram, self.dimension)
        self._put({name: self._started(gram)})

    def _started(self, offline: Gram | None) -> RidgeArm:
        share = self.offline_share
        if offline is None or share == 0.0:
            return self._unseen
        for arm in self._arms.values():
            if arm.base.gram is offline and arm.base.share == share:
                return RidgeArm.start(arm.base)
        return RidgeArm.start(Base.of(offline, self.dimension, l2=self.l2, share=share))

    def correct(
        self, contexts: NDArray[np.floating], names: Sequence[str]
    ) -> FloatArray:
        """Return what to add to the offline predictions.

        Parameters
        ----------
        contexts
            Shape ``(n, dimension)``.
        names
            Which arms.

        Returns
        -------
        FloatArray
            Shape ``(n, len(names))``; 0 for an arm that has learned nothing.

        Raises
        ------
        UnknownCandidateError
            If there is no such arm.
        """
        rows = np.asarray(contexts, dtype=np.float64)
        found = np.zeros((len(rows), len(names)))
        columns, solutions = self._solved(names)
        if columns:
            # Not `@`: the bits of a matrix product depend on its other columns.
            found[:, columns] = np.einsum("nd,kd->nk", rows, solutions)
        return found

    def correct_one(self, name: str, context: FloatArray) -> float:
        """Return what `correct` would for one arm and one context.

        Parameters
        ----------
        name, context
            Which, and shape ``(dimension,)``.
        """
        known = self._solutions[name]
        return 0.0 if known is None else float(known @ context)

    def solutions(self, names: Sequence[str]) -> FloatArray:
        """Return a copy of what each arm has learned, by which `correct` multiplies.

        Parameters
        ----------
        names
            Which arms.

        Returns
        -------
        FloatArray
            Shape ``(len(names), dimension)``.

        Raises
        ------
        UnknownCandidateError
            If there is no such arm.
        """
        columns, known = self._solved(names)
        found = np.zeros((len(names), self.dimension))
        found[columns] = known
        return found

    def _solved(self, names: Sequence[str]) -> tuple[list[int], FloatArray]:
        """Return the places of those that have learned something, and what."""
        if names is not self._taught_order:
            self._arms_of(names)
            known = [self._solutions[name] for name in names]
            taught = [i for i, solution in enumerate(known) if solution is not None]
            solutions = np.reshape([known[i] for i in taught], (-1, self.dimension))
            self._taught = taught, solutions
            self._taught_order = names if isinstance(names, tuple) else None
        return self._taught

    def update(
        self,
        name: str,
        context: NDArray[np.floating],
        residual: float,
        weight: float = 1.0,
    ) -> bool:
        """Learn one residual, after the arm's older data have decayed.

        Parameters
        ----------
        name
            Which arm.
        context
            Shape ``(dimension,)``.
        residual
            Reward minus the offline head's prediction.
        weight
            What it counts, above 0.

        Returns
        -------
        bool
            Whether it was taken; a refusal changes nothing and is counted.

        Raises
        ------
        UnknownCandidateError
            If there is no such arm.
        ConfigurationError
            If the context has another shape, or a number is not finite.
        """
        if not np.isfinite(residual):
            raise ConfigurationError(f"a residual must be finite, not {residual!r}")
        return self._learn(name, context, target=float(residual), weight=weight)

    def _replace(self, name: str, arm: RidgeArm) -> None:
        super()._replace(name, arm)
        was_taught = self._solutions[name] is not None
        solution = self._solve(name, arm)
        order, (columns, solutions) = self._taught_order, self._taught
        if order is None or name not in order:
            return
        if solution is not None and was_taught:
            solutions[columns.index(order.index(name))] = solution
        else:
            self._taught_order = None

    def _put(self, arms: Mapping[str, RidgeArm]) -> None:
        super()._put(arms)
        self._taught_order = None
        for name, arm in arms.items():
            self._solve(name, arm)
        for name in self._solutions.keys() - self._arms.keys():
            del self._solutions[name]

    def _solve(self, name: str, arm: RidgeArm) -> FloatArray | None:
        solution = arm.solution() if arm.moment.any() else None
        self._solutions[name] = solution
        return solution


def _sum_of(rows: FloatArray) -> Gram:
    with np.errstate(all="ignore"):  # what overflows is refused by who takes it
        return Gram(pack(rows.T @ rows), float(len(rows)))
