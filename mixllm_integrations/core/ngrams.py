"""Linear scores of a text from its word pieces, pairs of them, and its embedding.

Between stages 1 and 2: an embedding knows what a text means, the pieces know
how it is put. Which domain a query belongs to and how hard it is show in both.
Fitting needs scipy's sparse matrices; scoring a text needs numpy alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.chunks import chunks
from mixllm_integrations.core.types import FloatArray

__all__ = ["NgramRidge", "fold_of_rows"]

_PAIR_BUCKETS = 2**15
_ITERATIONS = 15  # our choice: stopping early regularises, too
_ODD = (np.int32(1_000_003), np.int32(8_191))
_Int = TypeVar("_Int", np.int32, np.int64)
_NOTHING = np.zeros(0, dtype=np.int64)
# 1 + log(count), looked up: a prompt has at most some thousand pieces.
_DAMPED = np.append(0.0, 1.0 + np.log(np.arange(1.0, 10_000.0))).astype(np.float32)


def fold_of_rows(n_rows: int, *, n_folds: int, seed: int) -> NDArray[np.intp]:
    """Return a fold for each row, all folds of nearly one size.

    Parameters
    ----------
    n_rows
        How many rows.
    n_folds
        How many folds; at most `n_rows` of them get rows.
    seed
        Decides the shuffle.

    Returns
    -------
    NDArray
        Shape ``(n_rows,)``, values below `n_folds`.
    """
    order = np.random.default_rng(seed).permutation(n_rows)
    folds = np.empty(n_rows, dtype=np.intp)
    folds[order] = np.arange(n_rows) % n_folds
    return folds


@dataclass(frozen=True, slots=True, eq=False)
class NgramRidge:
    """Ridge regression on tf-idf of pieces and pairs, beside the embedding.

    Parameters
    ----------
    n_pieces
        Size of the tokenizer's vocabulary.
    column_of
        Column of each piece and pair bucket, shape ``(n_pieces + 2**15,)``; 0
        where it was seen in at most one text.
    idf
        Inverse document frequency by column; that of column 0 is 0.
    weights
        Shape ``(n_columns + dimension, n_outputs)``.
    offset
        Mean of the targets, shape ``(n_outputs,)``.

    Notes
    -----
    Our choice. Pairs are hashed into buckets; the block conjugate gradient
    solves all outputs at once, each with its own ridge.
    """

    n_pieces: int
    column_of: NDArray[np.int32]
    idf: NDArray[np.float32]
    weights: NDArray[np.float32]
    offset: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        ids: Sequence[NDArray[np.int32]],
        embeddings: NDArray[np.float32],
        targets: FloatArray,
        *,
        l2: Sequence[float],
        n_pieces: int,
        n_folds: int = 5,
        seed: int = 0,
    ) -> tuple["NgramRidge", FloatArray]:
        """Fit on all texts, and score each text by a fit without it.

        Parameters
        ----------
        ids
            Word pieces of each text.
        embeddings
            Shape ``(n, dimension)``.
        targets
            Shape ``(n, n_outputs)``, finite.
        l2
            Ridge of each output.
        n_pieces
            Size of the vocabulary.
        n_folds
            For the scores out of fold.
        seed
            Decides the folds.

        Returns
        -------
        NgramRidge
            Fitted on everything.
        FloatArray
            Scores out of fold, shape ``(n, n_outputs)``: what a head that
            uses these scores must be trained on.
        """
        columns = [_columns(pieces, n_pieces) for pieces in ids]
        size = n_pieces + _PAIR_BUCKETS
        document_frequency = np.zeros(size, dtype=np.int64)
        for found, _ in columns:
            document_frequency[found] += 1
        kept = np.flatnonzero(document_frequency > 1)
        column_of = np.zeros(size, dtype=np.int32)
        column_of[kept] = np.arange(1, kept.size + 1, dtype=np.int32)
        idf = np.zeros(kept.size + 1, dtype=np.float32)
        idf[1:] = np.log((1 + len(ids)) / (1 + document_frequency[kept])) + 1
        offset = targets.mean(axis=0)
        blank = cls(
            n_pieces,
            column_of,
            idf,
            np.zeros((len(idf) + embeddings.shape[1], targets.shape[1]), np.float32),
            offset.astype(np.float32),
        )
        matrix = blank._matrix(columns, embeddings)
        centred = (targets - offset).astype(np.float32)
        ridge = np.asarray(l2, dtype=np.float32)
        scores = np.tile(offset, (len(ids), 1)).astype(np.float64)
        folds = fold_of_rows(len(ids), n_folds=min(n_folds, len(ids)), seed=seed)
        for fold in range(min(n_folds, len(ids)) if len(ids) > 1 else 0):
            inside = folds != fold
            weights = _conjugate_gradient(matrix[inside], centred[inside], ridge)
            scores[~inside] += matrix[~inside] @ weights
        weights = _conjugate_gradient(matrix, centred, ridge)
        half = weights.astype(np.float16).astype(np.float32)  # as they are saved
        fitted = cls(n_pieces, column_of, blank.idf, half, blank.offset)
        return fitted, scores

    def scores(
        self, ids: Sequence[NDArray[np.int32]], embeddings: NDArray[np.float32]
    ) -> FloatArray:
        """Return the scores of texts, shape ``(n, n_outputs)``.

        Parameters
        ----------
        ids
            Word pieces of each text.
        embeddings
            Shape ``(n, dimension)``.
        """
        scores = embeddings @ self.weights[len(self.idf) :] + self.offset
        if len(ids) == 1:
            columns, values = self._row(*_columns(ids[0], self.n_pieces))
            scores[0] += values @ self.weights.take(columns, axis=0)
        else:
            for chunk in chunks(len(ids)):
                self._add_scores(ids[chunk], scores[chunk])
        return np.asarray(scores, dtype=np.float64)

    def _add_scores(
        self, ids: Sequence[NDArray[np.int32]], scores: NDArray[np.float32]
    ) -> None:
        """Add what the pieces and pairs of each text score to its row."""
        columns, counts, bounds = self._known_columns(ids)
        values = _DAMPED.take(counts, mode="clip") * self.idf.take(columns)
        weights = self.weights.take(columns, axis=0)
        sums = np.zeros_like(scores)
        for row, (start, stop) in zip(sums, pairwise(bounds), strict=True):
            np.dot(values[start:stop], weights[start:stop], out=row)
        squares = np.append(0.0, np.cumsum(values * values, dtype=np.float64))
        lengths = np.sqrt(np.diff(squares.take(bounds))).astype(np.float32)
        lengths[lengths == 0.0] = 1.0  # nothing known, nothing to add
        sums /= lengths[:, None]
        scores += sums

    def _known_columns(
        self, ids: Sequence[NDArray[np.int32]]
    ) -> tuple[NDArray[np.int32], NDArray[np.intp], list[int]]:
        """Return the columns of texts, how often each, and where each text's lie.

        Those of text i stand from bound i to bound i + 1, ascending and without
        column 0.
        """
        pieces = np.concatenate(ids)
        columns = np.empty(max(2 * pieces.size - 1, 0), dtype=np.int32)
        columns[: pieces.size] = self.column_of.take(pieces)
        columns[pieces.size :] = self.column_of.take(_pairs(pieces, self.n_pieces))
        # Each text has numbers of its own, so that one sort does for all.
        first = np.arange(len(ids) + 1, dtype=np.int32) * np.int32(len(self.idf))
        base = first[:-1].repeat([own.size for own in ids])
        # The last piece of one text and the first of the next are no pair.
        columns[pieces.size :][base[1:] != base[:-1]] = 0
        known = columns != 0
        columns[: pieces.size] += base
        columns[pieces.size :] += base[:-1]
        found, counts = _distinct(columns[known])
        bounds = np.searchsorted(found, first)
        found -= first[:-1].repeat(np.diff(bounds))
        return found, counts, bounds.tolist()

    def _row(
        self, found: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        columns = self.column_of.take(found)
        values = _DAMPED.take(counts, mode="clip") * self.idf.take(columns)
        length = math.sqrt(values @ values)
        return columns, (values / np.float32(length) if length else values)

    def _matrix(
        self,
        columns: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
        embeddings: NDArray[np.float32],
    ) -> Any:  # noqa: ANN401
        from scipy import sparse

        rows = [self._row(*found) for found in columns]
        starts = np.cumsum([0, *(len(c) for c, _ in rows)])
        pieces = sparse.csr_matrix(
            (
                np.concatenate([v for _, v in rows]) if rows else np.zeros(0),
                np.concatenate([c for c, _ in rows]) if rows else np.zeros(0, int),
                starts,
            ),
            shape=(len(rows), len(self.idf)),
            dtype=np.float32,
        )
        return sparse.hstack([pieces, sparse.csr_matrix(embeddings)]).tocsr()


def _columns(
    pieces: NDArray[np.int32], n_pieces: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which pieces and pair buckets a text has, and how often each."""
    if not pieces.size:
        return _NOTHING, _NOTHING
    found = np.empty(2 * pieces.size - 1, dtype=np.int64)
    found[: pieces.size] = pieces
    found[pieces.size :] = _pairs(pieces, n_pieces)
    return _distinct(found)


def _pairs(pieces: NDArray[np.int32], n_pieces: int) -> NDArray[np.int32]:
    """Return the bucket of each piece and its next, behind all pieces."""
    # Only the last bits are kept, so nothing is lost where these overflow.
    buckets = pieces[:-1] * _ODD[0]
    buckets += pieces[1:] * _ODD[1]
    buckets &= _PAIR_BUCKETS - 1
    buckets += n_pieces
    return buckets


def _distinct(values: NDArray[_Int]) -> tuple[NDArray[_Int], NDArray[np.intp]]:
    """Sort in place; return the distinct values, and how often each is there."""
    values.sort()
    differs = np.empty(values.size + 1, dtype=np.bool_)  # from the one before
    differs[0] = differs[-1] = True
    np.not_equal(values[1:], values[:-1], out=differs[1:-1])
    (edges,) = differs.nonzero()
    starts = edges[:-1]
    return values.take(starts), edges[1:] - starts


def _conjugate_gradient(
    matrix: Any,  # noqa: ANN401
    targets: NDArray[np.float32],
    l2: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Solve (AᵀA + l2·I) w = Aᵀy for every column of y, each with its own l2."""
    transposed = matrix.T.tocsr()
    residual = transposed @ targets
    weights = np.zeros_like(residual)
    direction = residual.copy()
    square = np.einsum("ij,ij->j", residual, residual)
    for _ in range(_ITERATIONS):
        image = transposed @ (matrix @ direction) + l2 * direction
        curvature = np.einsum("ij,ij->j", direction, image)
        step = np.divide(square, curvature, out=np.zeros_like(square), where=square > 0)
        weights += step * direction
        residual -= step * image
        new = np.einsum("ij,ij->j", residual, residual)
        ratio = np.divide(new, square, out=np.zeros_like(new), where=square > 1e-12)
        direction = residual + ratio * direction
        square = np.where(new > 1e-12, new, 0)
    return np.asarray(weights, dtype=np.float32)
