r"""Learn the prior that routers start from before they have labels.

It is learned from the recorded answers of many models: what makes a query easy
or hard for all of them. Only what was learned is written, no question and no
answer. The result depends on the data alone::

    python -m mixllm_integrations.training.build_prior \
        --data ../shared/data/mmlu_pro.parquet \
        --data ../shared/data/llmrouter_ulab.parquet

It must not be used in figures on a data set that it was learned from;
``mixllm benchmark coldstart`` learns one from the other data sets.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.encoder import Encoder, StaticEncoder
from mixllm_integrations.core.errors import ConfigurationError, MixLLMError
from mixllm_integrations.core.form import FORM_FEATURES
from mixllm_integrations.core.prior import (
    QualityPrior,
    logit,
    sigmoid,
    standardised,
)
from mixllm_integrations.core.reading import Reading, read
from mixllm_integrations.core.types import FloatArray

__all__ = ["PriorSample", "learn_prior", "main", "read_sample"]

_HOME = Path(__file__).resolve().parents[1] / "data" / "prior"
_PENALTIES = (0.03, 0.1, 0.3, 1.0)  # per query; standardised features
_STRENGTHS = tuple(float(s) for s in np.linspace(0.0, 1.0, 9))  # never above 1
_NEW_DATA = 0.5  # a new data set is further away than a domain that was left out
_STEPS = 6
_COLUMNS = ("query_id", "query", "domain", "model", "quality")


@dataclass(frozen=True, slots=True, eq=False)
class PriorSample:
    """Recorded answers of one data set.

    Parameters
    ----------
    reading
        Of the queries.
    quality
        Shape ``(n, n_models)``, NaN where nothing was recorded.
    domains
        Of each query: kinds of question that stand for a new data set each.
    """

    reading: Reading
    quality: FloatArray
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Features, labels and base of some queries of one data set."""

    features: FloatArray
    quality: FloatArray
    base: FloatArray

    @classmethod
    def of(cls, features: FloatArray, quality: FloatArray) -> "_Part":
        known = np.isfinite(quality)
        sums = np.where(known, quality, 0.0).sum(axis=0)
        seen = known.any(axis=0)
        base = sums[seen] / known[:, seen].sum(axis=0)
        return cls(features, quality[:, seen], base)

    def loss(self, ease: FloatArray) -> float:
        said = sigmoid(logit(self.base) + ease[:, None])
        return float(np.nanmean((said - self.quality) ** 2))


def learn_prior(samples: Sequence[PriorSample]) -> QualityPrior:
    """Learn what makes a query easy for all models alike.

    Parameters
    ----------
    samples
        One per data set, each with at least two domains.

    Returns
    -------
    QualityPrior
        Its ridge and its strengths are those that predict a domain best which
        was left out, where each model's one number is its mean quality there;
        the least strength within one standard error is taken. The cold one is
        chosen without that domain's mean ease, and halved.

    Raises
    ------
    ConfigurationError
        If there are fewer than two domains.

    Notes
    -----
    Our choice: a logistic regression with one offset per model and data set
    and weights that all models share; each query counts once.
    """
    domains = np.array([f"{i}/{d}" for i, s in enumerate(samples) for d in s.domains])
    names = np.unique(domains)
    if len(names) < 2:
        raise ConfigurationError(
            f"a prior is learned from at least two domains, not {len(names)}"
        )
    form = np.vstack([s.reading.form for s in samples])
    sizes = np.cumsum([0, *(len(s.domains) for s in samples)])
    cold = np.zeros((len(names), len(_PENALTIES), len(_STRENGTHS)))
    fitted = np.zeros_like(cold)
    for k, name in enumerate(names):
        centre, scale = _moments(form[domains != name])
        features = standardised(form, centre, scale)
        train = _parts(samples, features, sizes, domains != name)
        (test,) = _parts(samples, features, sizes, domains == name)
        for i, penalty in enumerate(_PENALTIES):
            ease = test.features @ _weights(train, penalty)
            for j, strength in enumerate(_STRENGTHS):
                cold[k, i, j] = test.loss(strength * ease)
                fitted[k, i, j] = test.loss(strength * (ease - ease.mean()))
    best = int(fitted.mean(axis=0).min(axis=1).argmin())
    centre, scale = _moments(form)
    features = standardised(form, centre, scale)
    everything = np.ones(len(form), dtype=np.bool_)
    return QualityPrior(
        FORM_FEATURES,
        centre,
        scale,
        _weights(_parts(samples, features, sizes, everything), _PENALTIES[best]),
        _NEW_DATA * _strength(cold[:, best]),
        _strength(fitted[:, best]),
    )


def _strength(losses: FloatArray) -> float:
    """Return the least strength that is as good as the best by its standard error.

    Shape of the losses: ``(n_domains, n_strengths)``.
    """
    best = int(losses.mean(axis=0).argmin())
    worse = losses - losses[:, [best]]
    error = worse.std(axis=0, ddof=1) / np.sqrt(len(losses))
    return _STRENGTHS[int(np.argmax(worse.mean(axis=0) <= error))]


def _moments(form: FloatArray) -> tuple[FloatArray, FloatArray]:
    return form.mean(axis=0), form.std(axis=0) + 1e-3


def _parts(
    samples: Sequence[PriorSample],
    features: FloatArray,
    sizes: NDArray[np.int64],
    kept: NDArray[np.bool_],
) -> list[_Part]:
    """Return what is kept of each data set, without those of which nothing is."""
    found = []
    for sample, start, stop in zip(samples, sizes[:-1], sizes[1:], strict=True):
        own = kept[start:stop]
        if own.any():
            found.append(_Part.of(features[start:stop][own], sample.quality[own]))
    return found


def _weights(parts: Sequence[_Part], penalty: float) -> FloatArray:
    """Return the weights that all models share, by Newton's steps."""
    n_features = parts[0].features.shape[1]
    ridge = penalty * sum(len(part.features) for part in parts) * np.eye(n_features)
    weights = np.zeros(n_features)
    for _ in range(_STEPS):
        slope, curvature = -ridge @ weights, ridge.copy()
        for part in parts:
            said = sigmoid(logit(part.base) + (part.features @ weights)[:, None])
            missing = np.isnan(part.quality)
            left = np.where(missing, 0.0, part.quality - said)
            spread = np.where(missing, 0.0, said * (1.0 - said))
            count = np.maximum((~missing).sum(axis=1), 1)
            slope = slope + part.features.T @ (left.sum(axis=1) / count)
            weighed = part.features.T * (spread.sum(axis=1) / count)
            curvature = curvature + weighed @ part.features
        weights = weights + np.linalg.solve(curvature, slope)
    return np.asarray(weights)


def read_sample(
    path: str | Path, *, encoder: Encoder, fewest_queries: int = 100
) -> PriorSample:
    """Return the recorded answers of one file.

    Parameters
    ----------
    path
        A parquet file with the columns query_id, query, domain, model and
        quality.
    encoder
        Reads the queries.
    fewest_queries
        Models with fewer answers are left out.

    Raises
    ------
    ConfigurationError
        If pyarrow is missing, the file is, or it lacks a column.
    """
    rows = _read_rows(Path(path))
    queries: dict[str, tuple[str, str]] = {}
    models: dict[str, int] = {}
    for row in rows:
        queries.setdefault(str(row["query_id"]), (row["query"], row["domain"]))
        models[row["model"]] = models.get(row["model"], 0) + 1
    names = [name for name, count in models.items() if count >= fewest_queries]
    row_of = {query_id: i for i, query_id in enumerate(queries)}
    column_of = {name: i for i, name in enumerate(names)}
    quality = np.full((len(queries), len(names)), np.nan)
    for row in rows:
        if row["model"] in column_of and row["quality"] is not None:
            place = row_of[str(row["query_id"])], column_of[row["model"]]
            quality[place] = row["quality"]
    texts = [text for text, _ in queries.values()]
    domains = tuple(str(domain) for _, domain in queries.values())
    return PriorSample(read(texts, encoder), quality, domains)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigurationError(
            "reading parquet needs pyarrow: pip install 'mixllm-integrations[data]'"
        ) from error
    if not path.is_file():
        raise ConfigurationError(f"there is no file {str(path)!r}: pass --data")
    try:
        rows: list[dict[str, Any]] = pq.read_table(
            path, columns=list(_COLUMNS)
        ).to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ConfigurationError(f"{path.name} cannot be read: {error}") from error
    lacking = sorted(set(_COLUMNS) - set(rows[0] if rows else ()))
    if lacking:
        raise ConfigurationError(f"{path.name} lacks {lacking}")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Learn the prior and write it; return the exit code.

    Parameters
    ----------
    arguments
        Of the command line; ``None``: those of this process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mixllm_integrations.training.build_prior",
        description="Learn the prior that routers start from.",
    )
    parser.add_argument(
        "--data", required=True, action="append", help="a parquet file; repeatable"
    )
    parser.add_argument("--out", default=str(_HOME), help="folder to write")
    chosen = parser.parse_args(arguments)
    encoder = StaticEncoder.load()
    try:
        samples = [read_sample(file, encoder=encoder) for file in chosen.data]
        prior = learn_prior(samples)
    except MixLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    prior.save(chosen.out, sources=[Path(file).stem for file in chosen.data])
    print(
        f"{chosen.out}: {len(prior.features)} features, strength "
        f"{prior.cold_strength} cold and {prior.fitted_strength} fitted, revision "
        f"{prior.revision}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
