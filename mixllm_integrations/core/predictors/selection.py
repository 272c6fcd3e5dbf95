"""Which kind of predictor serves which candidate: asked of the data.

Every kind is tried out of fold on a subsample; a candidate gets the kind that
was best over all candidates, unless another one was clearly better for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.ngrams import fold_of_rows
from mixllm_integrations.core.parallel import map_apart
from mixllm_integrations.core.predictors.base import (
    PREDICTOR_KINDS,
    Predictor,
    PredictorKind,
    column_means,
    label_groups,
)
from mixllm_integrations.core.predictors.ensemble import (
    MEMBERS,
    EnsemblePredictor,
    mixing_weights,
)
from mixllm_integrations.core.predictors.knn import KnnPredictor
from mixllm_integrations.core.types import FloatArray

__all__ = [
    "KINDS",
    "LENGTH",
    "QUALITY",
    "HeadBank",
    "Preference",
    "checked_kind",
    "fit_heads",
]

KINDS: dict[PredictorKind, type[Predictor]] = {
    **MEMBERS,
    "knn": KnnPredictor,
    "ensemble": EnsemblePredictor,
}
_FOLDS, _SUBSAMPLE = 3, 3_000
_BY_GROUP = ("ridge", "mlp")  # learn nothing of candidates with other queries
_STANDARD_ERRORS = 3.0
_ENOUGH_FOR_MLP = 200  # queries: with fewer its luck out of fold misleads


class Preference(NamedTuple):
    """What is chosen among kinds that are nearly as good.

    Parameters
    ----------
    order
        A kind must be clearly better than those before it, not equal.
    clearly
        Share of their error that is clearly better.
    own_gain
        Share of the common error by which, and by three standard errors, one
        candidate's own choice must win: kinds shrink differently, so heads of
        different kinds are biased against each other when they are compared.
    """

    order: tuple[PredictorKind, ...]
    clearly: float
    own_gain: float


# Members err differently, so their mean compares candidates best.
QUALITY = Preference(("ensemble", "forest", "ridge", "mlp", "knn"), 0.995, 0.02)
# Price differs between candidates by more than length: the fastest head will do.
LENGTH = Preference(("ridge", "forest", "mlp", "knn", "ensemble"), 0.97, 0.1)


def checked_kind(predictor: str) -> str:
    """Return the kind asked for.

    Parameters
    ----------
    predictor
        ``"auto"`` or one of `PREDICTOR_KINDS`.

    Raises
    ------
    ConfigurationError
        If it is something else.
    """
    allowed = ("auto", *PREDICTOR_KINDS)
    if predictor not in allowed:
        raise ConfigurationError(
            f"predictor must be one of {allowed}, not {predictor!r}"
        )
    return predictor


@dataclass(frozen=True, slots=True, eq=False)
class HeadBank:
    """One head per candidate for one target, grouped by what they share.

    Parameters
    ----------
    parts
        Predictors, each with the columns of the candidates that it serves.
    n_candidates
        How many candidates there are.
    errors
        Mean squared error out of fold by kind, as far as it was measured.
    """

    parts: tuple[tuple[NDArray[np.intp], Predictor], ...]
    n_candidates: int
    errors: Mapping[str, float]

    def predict(self, contexts: FloatArray) -> FloatArray:
        """Return predictions, shape ``(n, n_candidates)``.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        """
        if len(self.parts) == 1:
            return self.parts[0][1].predict(contexts)
        found = np.empty((len(contexts), self.n_candidates))
        for columns, predictor in self.parts:
            found[:, columns] = predictor.predict(contexts)
        return found

    @property
    def kinds(self) -> list[str]:
        """Kind of each candidate's head."""
        kinds = [""] * self.n_candidates
        for columns, predictor in self.parts:
            for column in columns:
                kinds[column] = predictor.kind
        return kinds

    def select(self, kept: Sequence[int]) -> "HeadBank":
        """Return the bank of some candidates.

        Parameters
        ----------
        kept
            Their columns, in the new order.
        """
        place = {column: new for new, column in enumerate(kept)}
        parts = []
        for columns, predictor in self.parts:
            here = [i for i, column in enumerate(columns) if int(column) in place]
            if here:
                new = np.array([place[int(columns[i])] for i in here], dtype=np.intp)
                order = np.argsort(new)
                chosen = predictor.select(np.array(here, dtype=np.intp)[order])
                parts.append((new[order], chosen))
        return HeadBank(tuple(parts), len(kept), self.errors)

    def joined(self, other: "HeadBank") -> "HeadBank":
        """Return this bank with the candidates of another one behind its own.

        Parameters
        ----------
        other
            Heads of other candidates.
        """
        moved = [(columns + self.n_candidates, p) for columns, p in other.parts]
        return HeadBank(
            (*self.parts, *moved),
            self.n_candidates + other.n_candidates,
            {**other.errors, **self.errors},
        )


def fit_heads(
    contexts: FloatArray,
    targets: FloatArray,
    *,
    predictor: str,
    preference: Preference = QUALITY,
    seed: int,
) -> tuple[HeadBank, FloatArray, NDArray[np.intp]]:
    """Fit a head for every column of the targets.

    Parameters
    ----------
    contexts
        Shape ``(n, n_features)``.
    targets
        Shape ``(n, n_candidates)``, NaN where unlabelled; each candidate has a
        label.
    predictor
        ``"auto"`` or a kind.
    preference
        Among kinds that are nearly as good.
    seed
        Decides everything that is drawn.

    Returns
    -------
    HeadBank
        Fitted on everything.
    FloatArray
        Predictions of the chosen kinds out of fold, for a subsample, shape
        ``(n_subsample, n_candidates)``.
    NDArray
        Which rows that subsample is.

    Notes
    -----
    Source: MixLLM §3.2 for a regressor of its own per candidate. Choosing the
    kind by cross-validation is our choice.
    """
    labelled_rows = np.flatnonzero(np.isfinite(targets).any(axis=1))
    rows = np.random.default_rng(seed).permutation(labelled_rows)[:_SUBSAMPLE]
    rows.sort()
    tried = _out_of_fold(contexts, targets, rows, predictor, seed)
    truth = targets[rows]
    weights = None
    if predictor in {"auto", "ensemble"}:
        weights, tried["ensemble"] = _mixed(tried, truth)
    allowed = [k for k in preference.order if predictor in {"auto", k} and k in tried]
    losses = {k: (tried[k] - truth) ** 2 for k in allowed}
    chosen = _choose(losses, allowed, preference)
    parts, honest = [], np.empty(truth.shape)
    for kind in dict.fromkeys(chosen):
        columns = np.array([i for i, k in enumerate(chosen) if k == kind], np.intp)
        labelled = np.isfinite(targets[:, columns]).any(axis=1)
        given = contexts[labelled], targets[labelled][:, columns]
        if kind == "ensemble" and weights is not None:
            fitted: Predictor = EnsemblePredictor.fit(
                *given, seed=seed, weights=weights
            )
        else:
            fitted = KINDS[kind].fit(*given, seed=seed)
        parts.append((columns, fitted))
        honest[:, columns] = tried[kind][:, columns]
    errors: dict[str, float] = {k: float(np.nanmean(v)) for k, v in losses.items()}
    return HeadBank(tuple(parts), targets.shape[1], errors), honest, rows


def _mixed(
    tried: Mapping[PredictorKind, FloatArray], truth: FloatArray
) -> tuple[tuple[float, ...], FloatArray]:
    """Return a weight for every member, 0 for those not tried, and their mean."""
    members = [kind for kind in MEMBERS if kind in tried]
    found = mixing_weights([tried[kind] for kind in members], truth)
    weight_of = dict(zip(members, found, strict=True))
    weights = tuple(weight_of.get(kind, 0.0) for kind in MEMBERS)
    mix = sum(weight * tried[kind] for kind, weight in weight_of.items())
    return weights, np.asarray(mix)


class _Cell(NamedTuple):
    """What one kind is fitted on, and what it then predicts: rows and columns."""

    kind: PredictorKind
    inside: NDArray[np.intp]
    outside: NDArray[np.intp]
    columns: NDArray[np.intp]

    def said(self, contexts: FloatArray, targets: FloatArray, seed: int) -> FloatArray:
        """Return predictions, shape (n_outside, n_columns)."""
        labels = targets[self.inside][:, self.columns]
        labelled = np.isfinite(labels).any(axis=1)
        given = contexts[self.inside[labelled]], labels[labelled]
        return KINDS[self.kind].fit(*given, seed=seed).predict(contexts[self.outside])


def _out_of_fold(
    contexts: FloatArray,
    targets: FloatArray,
    rows: NDArray[np.intp],
    predictor: str,
    seed: int,
) -> dict[PredictorKind, FloatArray]:
    """Return predictions of rows out of fold by kind, shape (n_rows, n_candidates)."""
    wanted: list[PredictorKind] = [
        kind
        for kind in KINDS
        if kind != "ensemble"
        and (
            predictor in {"auto", kind} or (predictor == "ensemble" and kind in MEMBERS)
        )
    ]
    if predictor == "auto" and len(rows) < _ENOUGH_FOR_MLP:
        wanted.remove("mlp")
    n_folds = min(_FOLDS, len(rows))
    folds = fold_of_rows(len(rows), n_folds=n_folds, seed=seed)
    found = {
        kind: np.tile(column_means(targets[rows]), (len(rows), 1)) for kind in wanted
    }
    cells: list[_Cell] = []
    for fold in range(n_folds if n_folds > 1 else 0):
        inside, outside = rows[folds != fold], rows[folds == fold]
        labels = targets[inside]
        known = np.flatnonzero(np.isfinite(labels).any(axis=0))
        groups = [known[group] for group in label_groups(labels[:, known])]
        cells.extend(
            _Cell(kind, inside, outside, columns)
            for kind in (wanted if known.size else ())
            for columns in (groups if kind in _BY_GROUP else [known])
        )
    # Both arrays are the same in all calls, so a worker gets them once.
    calls = [(cell, contexts, targets, seed) for cell in cells]
    for cell, said in zip(cells, map_apart(_Cell.said, calls), strict=True):
        places = np.searchsorted(rows, cell.outside)
        found[cell.kind][np.ix_(places, cell.columns)] = said
    return found


def _is_sure(gains: FloatArray) -> bool:
    """Tell whether a mean gain is more than its standard error over queries."""
    per_query = column_means(gains.T)
    return len(per_query) > 1 and bool(
        per_query.mean() > per_query.std(ddof=1) / np.sqrt(len(per_query))
    )


def _choose(
    losses: Mapping[PredictorKind, FloatArray],
    allowed: Sequence[PredictorKind],
    preference: Preference,
) -> list[PredictorKind]:
    """Return the kind of each candidate."""
    common = allowed[0]
    for kind in allowed[1:]:
        if np.nanmean(losses[kind]) < preference.clearly * np.nanmean(losses[common]):
            common = kind if _is_sure(losses[common] - losses[kind]) else common
    typical = column_means(losses[common])
    chosen: list[PredictorKind] = [common] * len(typical)
    for column, loss in enumerate(typical):
        best_gain = preference.own_gain * float(loss)
        for kind in allowed:
            gains = losses[common][:, column] - losses[kind][:, column]
            gains = gains[np.isfinite(gains)]
            if gains.size < 2:
                continue
            gain = float(gains.mean())
            error = float(gains.std(ddof=1)) / np.sqrt(gains.size)
            if gain > max(best_gain, _STANDARD_ERRORS * error) and error > 0:
                chosen[column], best_gain = kind, gain
    return chosen
