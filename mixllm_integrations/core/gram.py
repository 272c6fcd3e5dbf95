"""What contexts add up to, and the matrix l2·I + share·(that sum), ready to solve.

A Gram matrix is symmetric: its lower triangle is all that is kept. `Base` adds
the ridge and holds T, the inverse of the Cholesky factor, so that A⁻¹ = TᵀT and
a query costs one product; T is lower triangular, so that its upper right
quarter is not kept either.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import FloatArray

__all__ = ["Base", "Gram", "pack", "unpack"]

_ROUNDING = 1e-9  # how far a Gram matrix may miss symmetry, and eigenvalues 0
_RIDGE_LOST = 2.0  # times what the ridge allows: then rounding has eaten it
_SMALL = 32  # below that, one general inverse is faster than two and a product


@dataclass(frozen=True, slots=True, eq=False)
class Gram:
    """The sum of weight·xxᵀ over contexts x.

    Parameters
    ----------
    packed
        Its lower triangle, row by row, shape ``(d·(d + 1)/2,)``.
    count
        The sum of the weights; 0: not known.
    """

    packed: FloatArray
    count: float = 0.0

    @classmethod
    def of(
        cls, matrix: ArrayLike, dimension: int, *, count: float = 0.0
    ) -> "Gram | None":
        """Return a matrix packed; ``None`` if all of it is 0: no data.

        Parameters
        ----------
        matrix
            Shape ``(dimension, dimension)``.
        dimension
            Length of a context.
        count
            The sum of the weights; 0: not known.

        Raises
        ------
        ConfigurationError
            If it is no Gram matrix: wrong shape, not finite, not symmetric, or
            with an eigenvalue below 0.
        """
        full = np.array(matrix, dtype=np.float64)
        if full.shape != (dimension, dimension):
            wanted = (dimension, dimension)
            raise ConfigurationError(
                f"the matrix must have shape {wanted}, not {full.shape}"
            )
        if not full.any():
            return None
        gram = cls(pack(full), count)
        if np.abs(full - full.T).max() > _ROUNDING * np.abs(full).max():
            raise ConfigurationError("the matrix is not symmetric")
        gram.check(dimension)
        return gram

    def check(self, dimension: int) -> None:
        """Find out whether it can be the sum of any contexts.

        Parameters
        ----------
        dimension
            Length of a context.

        Raises
        ------
        ConfigurationError
            If it has another size, is not finite, or not positive.
        """
        size = dimension * (dimension + 1) // 2
        if self.packed.shape != (size,):
            raise ConfigurationError(
                f"the triangle must have shape {(size,)}, not {self.packed.shape}"
            )
        if not np.isfinite(self.packed).all() or not 0.0 <= self.count < np.inf:
            raise ConfigurationError("the matrix is not finite")
        full = unpack(self.packed, dimension)
        largest = np.abs(self.packed).max()
        full.reshape(-1)[:: dimension + 1] += _ROUNDING * dimension * largest
        try:
            np.linalg.cholesky(full)
        except np.linalg.LinAlgError:
            raise ConfigurationError("the matrix is not positive definite") from None


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A = l2·I + share·gram, whose inverse is TᵀT.

    Parameters
    ----------
    dimension
        Length d of a context.
    l2
        The ridge, above 0.
    gram
        What was seen, perhaps shared with others; ``None``: nothing.
    share
        What it counts.
    left, right
        T's left columns, shape ``(d, h)``, and what is beside them below the
        quarter of zeros, ``(d - h, d - h)``; of no use without data.
    freedom
        trace(A⁻¹·share·gram): how many directions the data have settled.
    """

    dimension: int
    l2: float
    gram: Gram | None
    share: float
    left: FloatArray
    right: FloatArray
    freedom: float

    @classmethod
    def of(
        cls, gram: Gram | None, dimension: int, *, l2: float, share: float = 1.0
    ) -> "Base":
        """Return the matrix, ready to solve.

        Parameters
        ----------
        gram, dimension, l2, share
            As for the class.

        Raises
        ------
        ConfigurationError
            If it is infinite or indefinite, or so large that the ridge is lost
            in rounding.
        """
        if gram is None or share == 0.0:
            nothing = np.zeros((0, 0))
            return cls(dimension, l2, None, 1.0, nothing, nothing, 0.0)
        if not np.isfinite(gram.packed).all():
            raise ConfigurationError("the matrix is not finite")
        matrix = unpack(gram.packed, dimension)
        matrix *= share
        matrix.reshape(-1)[:: dimension + 1] += l2
        try:
            root = _inverse_of_lower(np.asarray(np.linalg.cholesky(matrix), np.float64))
        except np.linalg.LinAlgError:
            raise ConfigurationError("the matrix is not positive definite") from None
        half = dimension // 2
        left, right = root[:, :half].copy(), root[half:, half:].copy()
        diagonal = np.concatenate([np.einsum("ij,ij->j", t, t) for t in (left, right)])
        if not diagonal.max() * l2 <= _RIDGE_LOST:
            raise ConfigurationError(
                f"the matrix is too large for an l2 of {l2:g}: raise it, or scale the "
                "contexts down"
            )
        freedom = max(dimension - l2 * float(diagonal.sum()), 0.0)
        return cls(dimension, l2, gram, share, left, right, freedom)

    @property
    def count(self) -> float:
        """The sum of the weights of what was seen; 0 if that is not known."""
        return 0.0 if self.gram is None else self.share * self.gram.count

    def turn(self, contexts: FloatArray) -> FloatArray:
        """Return T·x of contexts, shape ``(..., d)``; its squares add up to xᵀA⁻¹x.

        Parameters
        ----------
        contexts
            Shape ``(d,)`` or ``(n, d)``.
        """
        if self.gram is None:
            return np.asarray(contexts / np.sqrt(self.l2))
        half = self.left.shape[1]
        if contexts.ndim == 1:  # what every decision asks for
            turned = self.left.dot(contexts[:half])
            turned[half:] += self.right.dot(contexts[half:])
            return np.asarray(turned)
        turned = contexts[:, :half] @ self.left.T
        turned[:, half:] += contexts[:, half:] @ self.right.T
        return np.asarray(turned)

    def turn_back(self, turned: FloatArray) -> FloatArray:
        """Return Tᵀ·y, shape ``(d,)``, so that ``turn_back(turn(b))`` is A⁻¹b.

        Parameters
        ----------
        turned
            y, shape ``(d,)``.
        """
        if self.gram is None:
            return np.asarray(turned / np.sqrt(self.l2))
        half = self.left.shape[1]
        parts = turned.dot(self.left), turned[half:].dot(self.right)
        return np.concatenate(parts)

    def seen(self) -> FloatArray:
        """Return A - l2·I, shape ``(d, d)``, only its lower triangle filled."""
        if self.gram is None:
            return np.zeros((self.dimension, self.dimension))
        return self.share * unpack(self.gram.packed, self.dimension)


def pack(matrix: FloatArray) -> FloatArray:
    """Return the lower triangle of a matrix, row by row.

    Parameters
    ----------
    matrix
        Shape ``(d, d)``.
    """
    return matrix.take(_places(len(matrix)))


def unpack(packed: FloatArray, dimension: int) -> FloatArray:
    """Return a lower triangular matrix, shape ``(dimension, dimension)``.

    Parameters
    ----------
    packed
        Its triangle, row by row.
    dimension
        Number of rows.
    """
    flat = np.zeros(dimension * dimension)
    flat[_places(dimension)] = packed
    return flat.reshape(dimension, dimension)


@cache
def _places(dimension: int) -> NDArray[np.intp]:
    return np.flatnonzero(np.tri(dimension, dtype=np.bool_))


def _inverse_of_lower(root: FloatArray) -> FloatArray:
    """Return the inverse of a lower triangular matrix, half by half."""
    size = len(root)
    if size <= _SMALL:
        return np.asarray(np.linalg.inv(root), dtype=np.float64)
    half = size // 2
    upper = _inverse_of_lower(root[:half, :half])
    lower = _inverse_of_lower(root[half:, half:])
    inverse = np.zeros((size, size))
    inverse[:half, :half], inverse[half:, half:] = upper, lower
    inverse[half:, :half] = -(lower @ (root[half:, :half] @ upper))
    return inverse
