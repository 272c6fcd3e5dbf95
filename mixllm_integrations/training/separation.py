"""The domain objective, and the loop that teaches it to a static encoder.

Two losses pull queries to their domain and domains apart. What a table of
millions of numbers must not do is learn some thousand queries by heart: most
of it stays still, the rest is pulled back, and queries held out end it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Course", "Epoch", "Loss", "domain_loss", "separability", "train_vectors"]

Loss = Literal["paper", "batch_all_triplet"]

_BATCH_SIZE = 256
_TRIPLET_BATCH_SIZE = 96  # triplets grow with its cube
_TRIPLET_MARGIN = 0.2  # of cosine distances
_PATIENCE = 2
_FEWEST_TEXTS = 3  # a piece that fewer texts hold stays where it is
_HINT = "fine-tuning needs torch: pip install 'mixllm-integrations[train]'"


@dataclass(frozen=True, slots=True)
class Epoch:
    """How far the training has come.

    Parameters
    ----------
    number
        0 before the first pass.
    loss
        Mean over the batches; NaN before the first pass.
    separability
        Of the queries held out: see `separability`.
    """

    number: int
    loss: float
    separability: float


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """What is learned, from where, and how fast.

    Parameters
    ----------
    ids
        Word pieces of each query; none is empty.
    shares
        How much each belongs to each domain, shape ``(n, n_domains)``, float32.
    held_out
        Which queries only judge, shape ``(n,)``.
    start
        Vectors to start from, shape ``(n_pieces, dimension)``.
    epochs, learning_rate, pull, seed, on_epoch
        As in `finetune_encoder`.
    """

    ids: Sequence[NDArray[np.int32]]
    shares: NDArray[np.float32]
    held_out: NDArray[np.bool_]
    start: NDArray[np.float32]
    epochs: int
    learning_rate: float
    pull: float
    seed: int
    on_epoch: Callable[[Epoch], None] | None

    def judged(self, table: NDArray[np.float32], pieces: "_Pieces") -> float:
        """Return the separability of the queries held out."""
        embeddings = pieces.embeddings(table)
        inside = ~self.held_out
        centroids = self.shares[inside].T @ embeddings[inside]
        lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
        centroids = (centroids / np.maximum(lengths, 1e-12)).astype(np.float32)
        return separability(
            embeddings[self.held_out], self.shares[self.held_out], centroids
        )


def separability(
    embeddings: NDArray[np.float32],
    shares: NDArray[np.floating[Any]],
    centroids: NDArray[np.float32],
) -> float:
    """Return how much nearer queries are to their own domain than to another.

    Parameters
    ----------
    embeddings
        Rows of length 1, shape ``(n, dimension)``.
    shares
        How much each query belongs to each domain, shape ``(n, n_domains)``;
        the largest is its own.
    centroids
        Of the domains, rows of length 1, shape ``(n_domains, dimension)``.

    Returns
    -------
    float
        Mean over the queries of the cosine to their own centroid less that to
        the nearest other one: positive where the nearest centroid is the right
        one.

    Notes
    -----
    Our choice.

    Examples
    --------
    The first query lies on its own centroid, the second on the other's.

    >>> axes = np.eye(2, dtype=np.float32)
    >>> separability(axes, np.eye(2), axes), separability(axes[:1], np.eye(2)[1:], axes)
    (1.0, -1.0)
    """
    cosines = embeddings @ centroids.T
    rows, own = np.arange(len(cosines)), shares.argmax(axis=1)
    nearness = cosines[rows, own]
    cosines[rows, own] = -np.inf
    return float((nearness - cosines.max(axis=1)).mean())


def domain_loss(embeddings: "Tensor", shares: "Tensor") -> "Tensor":
    """Return L_intra + L_inter of a batch, with its own centroids.

    L_intra is the mean cosine distance of the queries to their domain's
    centroid, L_inter the mean cosine of two centroids where that is positive.

    Parameters
    ----------
    embeddings
        Rows of length 1, shape ``(n, dimension)``.
    shares
        How much each query belongs to each domain, shape ``(n, n_domains)``.
        Domains without a query in the batch are left out.

    Notes
    -----
    Source: MixLLM Eq. 1–3 for the two parts. Cosines, centroids of the batch
    and equal weight of the parts are our choice.

    Examples
    --------
    Two domains at right angles, each query on its centroid: nothing to gain.

    >>> import torch
    >>> float(domain_loss(torch.eye(2), torch.eye(2)))
    0.0
    """
    import torch

    shares = shares[:, shares.sum(dim=0) > 0]
    centroids = torch.nn.functional.normalize(shares.T @ embeddings, dim=1)
    cosines = embeddings @ centroids.T
    intra = (shares * (1.0 - cosines)).sum() / shares.sum()
    n = len(centroids)
    between = (centroids @ centroids.T).clamp(min=0.0)
    inter = (between.sum() - between.diagonal().sum()) / max(n * (n - 1), 1)
    return intra + inter


def train_vectors(course: Course, loss: Loss) -> NDArray[np.float32]:
    """Return all vectors as they were where the queries held out lay apart best.

    Parameters
    ----------
    course
        What is learned.
    loss
        By which objective.

    Returns
    -------
    NDArray[np.float32]
        Shape ``(n_pieces, dimension)``; the rows of pieces that fewer than
        three texts hold are those of the start.

    Raises
    ------
    ConfigurationError
        If torch or sentence-transformers is missing.

    Notes
    -----
    Our choice. One thread, since the order of sums, and so the last bit, hangs
    on their number.
    """
    try:
        import torch
    except ImportError as error:
        raise ConfigurationError(_HINT) from error
    objective = _objective(loss)
    size = _BATCH_SIZE if loss == "paper" else _TRIPLET_BATCH_SIZE
    pieces = _Pieces(course.ids, ~course.held_out)
    origin = torch.from_numpy(course.start[pieces.seen])
    bag = torch.nn.EmbeddingBag.from_pretrained(
        origin.clone(), freeze=False, mode="sum"
    )
    back = torch.full((len(origin), 1), course.pull)
    back[~torch.from_numpy(pieces.moves)] = 1.0
    scale = float(origin.std())
    adam = torch.optim.Adam(bag.parameters(), lr=course.learning_rate * scale)
    best, best_table, waited = -np.inf, course.start[pieces.seen], 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number in range(course.epochs + 1):
            losses = []
            for rows in _batches(course, number, size):
                flat, starts = map(torch.from_numpy, pieces.batch(rows))
                embeddings = torch.nn.functional.normalize(bag(flat, starts), dim=1)
                value = objective(embeddings, torch.from_numpy(course.shares[rows]))
                adam.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                adam.step()
                with torch.no_grad():
                    bag.weight += back * (origin - bag.weight)
                losses.append(float(value.detach()))
            table = bag.weight.detach().numpy()
            found = course.judged(table, pieces)
            if course.on_epoch is not None:
                mean = float(np.mean(losses)) if losses else float("nan")
                course.on_epoch(Epoch(number, mean, found))
            waited += 1
            if found > best:
                best, best_table, waited = found, table.copy(), 0
            if waited >= _PATIENCE:
                break
    finally:
        torch.set_num_threads(threads)
    vectors = course.start.copy()
    vectors[pieces.seen] = best_table
    return vectors


class _Pieces:
    """The pieces that occur, renumbered, and the texts as rows of counts."""

    def __init__(
        self, ids: Sequence[NDArray[np.int32]], learned: NDArray[np.bool_]
    ) -> None:
        from scipy import sparse

        lengths = [own.size for own in ids]
        self.seen, flat = np.unique(np.concatenate(list(ids)), return_inverse=True)
        self.edges = np.cumsum([0, *lengths])
        self.flat = flat.astype(np.int64)
        shape = (len(ids), len(self.seen))
        ones = np.ones(len(flat), dtype=np.float32)
        self.counts = sparse.csr_matrix((ones, self.flat, self.edges), shape=shape)
        self.counts.sum_duplicates()
        texts = np.asarray((self.counts[learned] > 0).sum(axis=0)).ravel()
        self.moves = texts >= _FEWEST_TEXTS

    def embeddings(self, table: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the embeddings of all texts, rows of length 1."""
        sums = np.asarray(self.counts @ table)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.asarray(sums / np.maximum(lengths, 1e-12), dtype=np.float32)

    def batch(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.int64], ...]:
        """Return the pieces of some texts behind each other, and where each starts."""
        parts = [self.flat[self.edges[i] : self.edges[i + 1]] for i in rows]
        starts = np.cumsum([0, *(part.size for part in parts[:-1])])
        return np.concatenate(parts), starts


def _batches(course: Course, number: int, size: int) -> Iterator[NDArray[np.intp]]:
    """Shuffle the queries that are learned from; none before the first pass."""
    if number == 0:
        return
    rows = np.flatnonzero(~course.held_out)
    rows = np.random.default_rng([course.seed, number]).permutation(rows)
    yield from np.array_split(rows, -(-len(rows) // size))


def _objective(loss: Loss) -> Callable[["Tensor", "Tensor"], "Tensor"]:
    if loss == "paper":
        return domain_loss
    try:
        import torch
        from sentence_transformers.sentence_transformer.losses import (
            BatchAllTripletLoss,
            BatchHardTripletLossDistanceFunction,
        )
    except ImportError as error:
        raise ConfigurationError(_HINT) from error
    triplets = BatchAllTripletLoss(
        torch.nn.Identity(),  # type: ignore[arg-type]  # embeddings are given
        BatchHardTripletLossDistanceFunction.cosine_distance,
        _TRIPLET_MARGIN,
    )
    return lambda embeddings, shares: triplets.compute_loss_from_embeddings(
        [embeddings], shares.argmax(dim=1)
    )
