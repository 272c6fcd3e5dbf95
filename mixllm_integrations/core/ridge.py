"""Ridge regression of one arm, exact at every step: its matrix and its solution.

An arm's matrix is A = l2·I + the sum of weight·xxᵀ over the contexts x it was
seen with; its moment is b = the sum of weight·target·x. Asked for are the
leverage xᵀA⁻¹x and the solution A⁻¹b.

No inverse is stored. Older data stand as a Gram matrix with its eigenvectors
(`Spectrum`), which arms that saw the same rows share; the few contexts since
are a tail of low rank on top. In the axes of the spectrum both l2·I and any
share of the data are diagonal: so forgetting is exact at every step, the floor
l2·I never decays, and an update costs O(d²). A tail that has grown long is
merged into a new spectrum.

Arms are values: an update makes a new one, so that a refused update leaves
nothing behind and no arm can touch another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.types import FloatArray

__all__ = ["Arrays", "RidgeArm", "Spectrum", "arms_from_arrays", "arms_to_arrays"]

_LONGEST_TAIL = 64  # our choice: keeps a query cheap and a new spectrum rare
_ROUNDING = 1e-9  # how far a Gram matrix may miss symmetry and a mass of 0

Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """A Gram matrix and its eigenvectors; without a matrix, that of no data.

    Parameters
    ----------
    gram
        Sum of xxᵀ, shape ``(d, d)``.
    axes
        Its eigenvectors as rows, shape ``(d, d)``.
    mass
        Its eigenvalues, shape ``(d,)``, none below 0.
    """

    gram: FloatArray | None
    axes: FloatArray | None
    mass: FloatArray

    @classmethod
    def of(cls, gram: ArrayLike | None, dimension: int) -> "Spectrum":
        """Return the spectrum of a Gram matrix.

        Parameters
        ----------
        gram
            Shape ``(dimension, dimension)``; ``None`` or all 0: no data.
        dimension
            Length of a context.

        Returns
        -------
        Spectrum
            The spectrum.

        Raises
        ------
        ConfigurationError
            If it is no Gram matrix: wrong shape, not finite, not symmetric, or
            with an eigenvalue below 0.
        """
        if gram is None:
            return cls(None, None, np.zeros(dimension))
        matrix = np.array(gram, dtype=np.float64)
        if matrix.shape != (dimension, dimension):
            wanted = (dimension, dimension)
            raise ConfigurationError(
                f"the matrix must have shape {wanted}, not {matrix.shape}"
            )
        size = np.abs(matrix).max(initial=0.0)
        if not np.isfinite(size):
            raise ConfigurationError("the matrix is not finite")
        if size == 0.0:
            return cls(None, None, np.zeros(dimension))
        if np.abs(matrix - matrix.T).max() > _ROUNDING * size:
            raise ConfigurationError("the matrix is not symmetric")
        mass, columns = np.linalg.eigh(matrix)
        if not np.isfinite(mass).all():
            raise ConfigurationError("the matrix has an eigenvalue that is not finite")
        if not mass[0] >= -_ROUNDING * dimension * size:
            raise ConfigurationError(
                f"the matrix is not positive definite: eigenvalue {mass[0]:g}"
            )
        return cls(matrix, np.ascontiguousarray(columns.T), np.maximum(mass, 0.0))

    def turn(self, contexts: FloatArray) -> FloatArray:
        """Return contexts, shape ``(..., d)``, in the axes of this spectrum."""
        if self.axes is None:
            return contexts
        if contexts.ndim == 1:
            return np.asarray(self.axes @ contexts)
        return np.asarray(contexts @ self.axes.T)

    def turn_back(self, turned: FloatArray) -> FloatArray:
        """Return a vector, shape ``(d,)``, in the usual axes again."""
        return turned if self.axes is None else np.asarray(turned @ self.axes)


@dataclass(frozen=True, slots=True, eq=False)
class RidgeArm:
    """l2·I + share · (a spectrum) + the sum of weight·xxᵀ over a tail.

    Parameters
    ----------
    l2
        The ridge, above 0.
    spectrum
        Older data, perhaps shared with other arms.
    share
        What they still count.
    moment
        b, shape ``(d,)``.
    tail, weights
        Contexts since, shape ``(m, d)``, and what each counts, ``(m,)``.
    scale
        D^-½, shape ``(d,)``, with the diagonal matrix D = l2 + share · mass.
    known
        P, shape ``(m, d)``, such that A⁻¹ = D^-½ (I - PᵀP) D^-½ in the axes of
        the spectrum: with V the turned tail times D^-½ and W the weights,
        PᵀP = Vᵀ(W⁻¹ + VVᵀ)⁻¹V (Woodbury; Sherman-Morrison row by row).
    """

    l2: float
    spectrum: Spectrum
    share: float
    moment: FloatArray
    tail: FloatArray
    weights: FloatArray
    scale: FloatArray
    known: FloatArray

    @classmethod
    def start(
        cls,
        spectrum: Spectrum,
        *,
        l2: float,
        share: float = 1.0,
        moment: FloatArray | None = None,
    ) -> "RidgeArm":
        """Return an arm without a tail; a moment left out is 0."""
        dimension = spectrum.mass.size
        nothing = np.zeros((0, dimension))
        return cls(
            l2=l2,
            spectrum=spectrum,
            share=share,
            moment=np.zeros(dimension) if moment is None else moment,
            tail=nothing,
            weights=np.zeros(0),
            scale=1.0 / np.sqrt(l2 + share * spectrum.mass),
            known=nothing,
        )

    @property
    def is_unseen(self) -> bool:
        """Whether it holds no data at all."""
        return self.spectrum.gram is None and not len(self.tail)

    def gram(self) -> FloatArray:
        """Return A - l2·I, a copy."""
        dimension = self.moment.size
        base = self.spectrum.gram
        older = np.zeros((dimension,) * 2) if base is None else self.share * base
        return np.asarray(older + (self.tail.T * self.weights) @ self.tail)

    def solution(self) -> FloatArray:
        """Return A⁻¹b, shape ``(d,)``."""
        scaled = self._unknown(self.spectrum.turn(self.moment) * self.scale)
        return self.spectrum.turn_back(scaled * self.scale)

    def plus(self, gram: FloatArray, moment: FloatArray | None = None) -> "RidgeArm":
        """Return the arm with more data, given as their sums, and no tail."""
        total = Spectrum.of(self.gram() + gram, self.moment.size)
        more = self.moment if moment is None else self.moment + moment
        return RidgeArm.start(total, l2=self.l2, moment=more)

    def observe(
        self, context: FloatArray, *, target: float, weight: float, keep: float
    ) -> "RidgeArm":
        """Return the arm with one more context; older data count `keep` times."""
        arm = self
        if len(arm.tail) >= _LONGEST_TAIL:
            whole = Spectrum.of(arm.gram(), context.size)
            arm = RidgeArm.start(whole, l2=arm.l2, moment=arm.moment)
        if keep < 1.0:
            arm = arm.decayed(keep)
        arm = arm.appended(context, weight)
        return replace(arm, moment=keep * self.moment + weight * target * context)

    def appended(self, context: FloatArray, weight: float) -> "RidgeArm":
        """Return the arm with a longer tail; the moment stays."""
        scaled = self.spectrum.turn(context) * self.scale
        fresh = self._unknown(scaled)
        row = fresh / np.sqrt(1.0 / weight + max(float(scaled @ fresh), 0.0))
        return replace(
            self,
            tail=np.vstack((self.tail, context)),
            weights=np.append(self.weights, weight),
            known=np.vstack((self.known, row)),
        )

    def decayed(self, keep: float) -> "RidgeArm":
        """Return the arm with its matrix's data counting less; the ridge stays."""
        share, weights = self.share * keep, self.weights * keep
        scale = 1.0 / np.sqrt(self.l2 + share * self.spectrum.mass)
        rows = self.spectrum.turn(self.tail) * scale * np.sqrt(weights)[:, None]
        root = np.linalg.cholesky(np.eye(len(rows)) + rows @ rows.T)
        known = np.linalg.solve(root, rows)
        return replace(self, share=share, weights=weights, scale=scale, known=known)

    def is_sound(self) -> bool:
        """Whether everything it computes with is finite."""
        parts = (self.known, self.scale, self.moment, self.weights)
        return all(bool(np.isfinite(p).all()) for p in parts)

    def _unknown(self, scaled: FloatArray) -> FloatArray:
        if not len(self.known):
            return scaled
        return np.asarray(scaled - (self.known @ scaled) @ self.known)


def arms_to_arrays(arms: Sequence[RidgeArm]) -> dict[str, NDArray[np.generic]]:
    """Return arms as plain arrays; what they share is stored once.

    Parameters
    ----------
    arms
        In the order in which `arms_from_arrays` gives them back.

    Returns
    -------
    dict of str to array
        ``arm_of`` (place -> different arm), ``spectrum_of`` (arm -> spectrum,
        -1: no data), ``share``, ``moment``, and where there are any
        ``gram/<spectrum>``, ``tail/<arm>``, ``weights/<arm>``.
    """
    different = list({id(arm): arm for arm in arms}.values())
    place = {id(arm): index for index, arm in enumerate(different)}
    spectra = {
        id(arm.spectrum): arm.spectrum
        for arm in different
        if arm.spectrum.gram is not None
    }
    number = {key: index for index, key in enumerate(spectra)}
    dimension = arms[0].moment.size if arms else 0
    arrays: dict[str, NDArray[np.generic]] = {
        "arm_of": np.array([place[id(arm)] for arm in arms], dtype=np.int64),
        "spectrum_of": np.array(
            [number.get(id(arm.spectrum), -1) for arm in different], dtype=np.int64
        ),
        "share": np.array([arm.share for arm in different], dtype=np.float64),
        "moment": np.reshape(
            [a.moment for a in different], (len(different), dimension)
        ),
    }
    for index, spectrum in enumerate(spectra.values()):
        if spectrum.gram is not None:
            arrays[f"gram/{index}"] = spectrum.gram
    for index, arm in enumerate(different):
        if len(arm.tail):
            arrays[f"tail/{index}"] = arm.tail
            arrays[f"weights/{index}"] = arm.weights
    return arrays


def arms_from_arrays(
    arrays: Arrays, count: int, *, dimension: int, l2: float, keep: float
) -> list["RidgeArm | str"]:
    """Return the arms that `arms_to_arrays` stored, or why one is unreadable.

    Parameters
    ----------
    arrays
        What `arms_to_arrays` returned.
    count
        How many arms there must be.
    dimension, l2
        Of the arms.
    keep
        What older data count after each update; only decides in which order
        the tail is computed, so that the bits are those that were saved.

    Returns
    -------
    list of RidgeArm or str
        In the order that was stored; a text says what is wrong with the arm.

    Raises
    ------
    StateFormatError
        If it cannot be told which arm is which.
    """
    try:
        arm_of = np.asarray(arrays["arm_of"]).astype(np.int64, casting="safe")
        spectrum_of = np.asarray(arrays["spectrum_of"]).astype(np.int64, casting="safe")
    except (KeyError, TypeError) as error:
        raise StateFormatError(f"the list of arms is damaged: {error}") from error
    if arm_of.shape != (count,) or spectrum_of.ndim != 1 or (arm_of < 0).any():
        raise StateFormatError(
            f"statistics of {count} arms are needed, the state has {arm_of.shape}"
        )
    spectra: dict[int, Spectrum] = {-1: Spectrum.of(None, dimension)}
    arms: dict[int, RidgeArm | str] = {}
    for arm in arm_of.tolist():
        if arm in arms:
            continue
        try:
            base = int(spectrum_of[arm])
            if base not in spectra:
                spectra[base] = Spectrum.of(arrays[f"gram/{base}"], dimension)
            arms[arm] = _arm_from(arrays, arm, spectra[base], l2=l2, keep=keep)
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            arms[arm] = f"{type(error).__name__}: {error}"
    return [arms[arm] for arm in arm_of.tolist()]


def _arm_from(
    arrays: Arrays, index: int, spectrum: Spectrum, *, l2: float, keep: float
) -> RidgeArm:
    dimension = spectrum.mass.size
    share = float(_finite(arrays["share"][index], "share"))
    moment = _finite(arrays["moment"][index], "moment")
    if not 0.0 <= share <= 1.0 or moment.shape != (dimension,):
        raise StateFormatError(f"share {share:g} or moment {moment.shape} is damaged")
    arm = RidgeArm.start(spectrum, l2=l2, share=share, moment=moment)
    if f"tail/{index}" not in arrays:
        return arm
    tail = _finite(arrays[f"tail/{index}"], "tail")
    weights = _finite(arrays[f"weights/{index}"], "weights")
    if tail.shape != (len(weights), dimension) or not (weights >= 0).all():
        raise StateFormatError(f"its tail is damaged: {tail.shape}, {weights.shape}")
    if keep < 1.0 and len(tail) > 1:
        arm = replace(arm, tail=tail[:-1], weights=weights[:-1]).decayed(1.0)
        tail, weights = tail[-1:], weights[-1:]
    for row, weight in zip(tail, weights.tolist(), strict=True):
        arm = arm.appended(row, weight)
    return arm


def _finite(array: ArrayLike, what: str) -> FloatArray:
    values = np.array(array, dtype=np.float64)
    if not np.isfinite(values).all():
        raise StateFormatError(f"its {what} is not finite")
    return values
