"""The pair of each candidate: a head for quality and one for length.

Quality lies in [0, 1]. Length is learned on log(1 + tokens) and multiplied by
a smearing factor, so that its *mean*, and with it the mean cost, is unbiased.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.predictors.base import column_means
from mixllm_integrations.core.predictors.selection import LENGTH, HeadBank, fit_heads
from mixllm_integrations.core.predictors.shrinkage import label_scatter, shrunk_slope
from mixllm_integrations.core.pricing import LONGEST_ANSWER
from mixllm_integrations.core.prior import QualityPrior
from mixllm_integrations.core.reading import Reading
from mixllm_integrations.core.types import Candidate, FloatArray

__all__ = ["UNKNOWN_OUTPUT_TOKENS", "CandidateHeads", "prior_quality"]

UNKNOWN_OUTPUT_TOKENS = 256.0  # where no length was ever seen (our choice)
_SMEARING_LIMITS = (0.2, 5.0)
_LONGEST_LOG = float(np.log1p(LONGEST_ANSWER))
# Least squares over the 26 models recorded in two public data sets: mean
# quality against log10 of the blended list price (3 input : 1 output).
_PRIOR_AT_ONE_DOLLAR, _PRIOR_PER_DECADE = 0.53, 0.16
_PRIOR_LIMITS = (0.2, 0.9)
_CLASS_WIDTH = 0.3  # decades of price within which candidates are alike
# How far means lie from their priors, one level for all taken off: declared
# ones (our guess), and those by price (two public data sets); the level itself.
_DECLARED_SPREAD, _PRICED_SPREAD, _LEVEL_SPREAD = 0.05, 0.15, 0.15
_SPREAD_MASS = 5.0  # candidates that the guess of a spread counts as
_HALF_TRUST = 100.0  # labels with which half of what a head says is usually noise
# How sure the usual trust in heads, and in the prior, is: in variances of a label.
_TRUST_MASS, _PRIOR_MASS = 64.0, 16.0
_MOST_TRUST = 1.5  # a mean of several heads is timid
_ENOUGH = 2_000  # labels from which on a head learns quality, not residuals


def _blended(candidate: Candidate) -> float:
    price = (
        3 * candidate.input_cost_per_million_tokens
        + candidate.output_cost_per_million_tokens
    ) / 4
    return float(np.log10(max(price, 0.01)))


def prior_quality(
    candidate: Candidate, known: Sequence[tuple[Candidate, float]] = ()
) -> float:
    """Return the quality to expect of a candidate before it was ever seen.

    Parameters
    ----------
    candidate
        Its own `prior_quality` is used if it has one.
    known
        Other candidates with their mean quality: those of its price class are
        pooled, nearer prices weighing more.

    Notes
    -----
    Our choice.

    Examples
    --------
    >>> prior_quality(Candidate("new", 1.0, 1.0, prior_quality=0.7))
    0.7
    >>> cheap, dear = Candidate("a", 0.1, 0.1), Candidate("b", 10.0, 10.0)
    >>> prior_quality(cheap) < prior_quality(dear)
    True
    """
    if candidate.prior_quality is not None:
        return float(candidate.prior_quality)
    here = _blended(candidate)
    total, mass = 0.0, 0.0
    for other, quality in known:
        weight = float(np.exp(-(((_blended(other) - here) / _CLASS_WIDTH) ** 2) / 2))
        total, mass = total + weight * quality, mass + weight
    guess = float(
        np.clip(_PRIOR_AT_ONE_DOLLAR + _PRIOR_PER_DECADE * here, *_PRIOR_LIMITS)
    )
    return (total + 0.1 * guess) / (mass + 0.1)


@dataclass(frozen=True, slots=True, eq=False)
class CandidateHeads:
    """Quality and length heads of the candidates that were fitted.

    Parameters
    ----------
    names
        Candidates, in the order of the columns.
    quality, length
        Their heads; lengths on log(1 + tokens).
    smearing
        What raised lengths are multiplied by, shape ``(n_candidates,)``.
    mean_quality, mean_output_tokens
        Means of the labels, shape ``(n_candidates,)``: what a blank query gets.
    n_labels
        How many queries each candidate was labelled on.
    shift
        What is added to the quality of each head, most where labels are few.
    leans
        How much of a prior that depends on the query is added to each head, in
        [0, 1]; such a head was fitted to what the prior left.
    level
        Mean ease of the queries that each candidate was labelled on.
    trust
        What a head's departures from the mean are multiplied by, in [0, 1.5].
    """

    names: tuple[str, ...]
    quality: HeadBank
    length: HeadBank
    smearing: FloatArray
    mean_quality: FloatArray
    mean_output_tokens: FloatArray
    n_labels: NDArray[np.int64]
    shift: FloatArray
    leans: FloatArray
    level: FloatArray
    trust: FloatArray

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        contexts: FloatArray,
        quality: FloatArray,
        output_tokens: FloatArray,
        *,
        predictor: str,
        seed: int,
        prior: QualityPrior | None = None,
        reading: Reading | None = None,
    ) -> "CandidateHeads":
        """Fit both heads of every candidate.

        Parameters
        ----------
        names
            Candidates, in the order of the columns.
        contexts
            Shape ``(n, n_features)``.
        quality, output_tokens
            Shape ``(n, n_candidates)``, NaN where unlabelled. A candidate
            without any length gets the mean length of the others.
        predictor
            ``"auto"`` or a kind, for both heads.
        seed
            Decides everything that is drawn.
        prior, reading
            A prior, and the queries as it wants them. Where a candidate has few
            labels its head only learns what they are beyond the prior.

        Notes
        -----
        Source: MixLLM Eq. 4 and 5. Logarithm and smearing are our choice, and
        so are residuals from a prior.
        """
        means, counts = column_means(quality), np.isfinite(quality).sum(axis=0)
        few = counts < _ENOUGH
        leans, level, beyond = np.zeros(len(names)), np.zeros(len(names)), quality
        if prior is not None and reading is not None and few.any():
            ease = np.where(np.isfinite(quality), prior.ease(reading)[:, None], np.nan)
            level = column_means(ease)
            departures = prior.departures(reading, means, level=level)
            slope = shrunk_slope(departures, quality - means, 1.0, mass=_PRIOR_MASS)
            leans = np.where(few, slope, 0.0)
            beyond = quality - leans * departures
        bank, found, tried = fit_heads(contexts, beyond, predictor=predictor, seed=seed)
        usual = counts / (counts + _HALF_TRUST)
        said, truth = found - means, beyond[tried] - means
        trust = shrunk_slope(said, truth, usual, mass=_TRUST_MASS, most=_MOST_TRUST)
        lengths = _without_gaps(output_tokens)
        logs, honest, rows = fit_heads(
            contexts,
            np.log1p(lengths),
            predictor=predictor,
            preference=LENGTH,
            seed=seed + 1,
        )
        return cls(
            tuple(names),
            bank,
            logs,
            _smearing(lengths[rows], _raised(honest)),
            means,
            column_means(lengths),
            counts,
            np.zeros(len(names)),
            leans,
            level,
            trust,
        )

    def refitted(
        self,
        contexts: FloatArray,
        quality: FloatArray,
        labelled: NDArray[np.bool_],
        *,
        predictor: str,
        seed: int,
    ) -> "CandidateHeads":
        """Return these heads with quality learned anew; lengths stay.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        quality
            A label, or what stands for one, of every row and candidate.
        labelled
            Which are labels, of the same shape.
        predictor, seed
            As for `fit`.
        """
        means, counts = column_means(quality), labelled.sum(axis=0)
        bank, found, tried = fit_heads(
            contexts, quality, predictor=predictor, seed=seed
        )
        truth = np.where(labelled, quality, np.nan)[tried] - means
        usual = counts / (counts + _HALF_TRUST)
        return replace(
            self,
            quality=bank,
            mean_quality=means,
            n_labels=counts,
            shift=np.zeros(len(means)),
            leans=np.zeros(len(means)),
            trust=shrunk_slope(
                found - means, truth, usual, mass=_TRUST_MASS, most=_MOST_TRUST
            ),
        )

    def leaning(
        self,
        candidates: Sequence[Candidate],
        quality: FloatArray | None = None,
        *,
        known: Sequence[tuple[Candidate, float]] = (),
    ) -> "CandidateHeads":
        """Return these heads, their levels moved towards the candidates' priors.

        Parameters
        ----------
        candidates
            Whose heads they are, in the same order.
        quality
            The labels, shape ``(n, n_candidates)``, NaN where unlabelled: they
            say how much a mean scatters. Without them the most is assumed.
        known
            Other candidates with their mean quality, for the priors.

        Notes
        -----
        Our choice: empirical Bayes. A mean of few labels is drawn to the prior
        as far as labels scatter more than the means differ from the priors; the
        level common to all candidates is taken from the labels. With thousands
        of labels nothing is left of it.
        """
        means, counts = self.mean_quality, self.n_labels
        scatter = label_scatter(means, quality)
        declared = np.array([c.prior_quality is not None for c in candidates])
        priors = np.array([prior_quality(c, known) for c in candidates])
        above = means - priors
        level = float(np.average(above, weights=counts)) if counts.any() else 0.0
        most = float(counts.max(initial=0))
        level *= most / (most + scatter / _LEVEL_SPREAD**2)
        above = above - level
        spread = np.empty(len(means))
        for which, guess in ((declared, _DECLARED_SPREAD), (~declared, _PRICED_SPREAD)):
            if which.any():
                chance = scatter / np.maximum(counts[which], 1)
                seen = max(float((above[which] ** 2 - chance).sum()), 0.0)
                mass = _SPREAD_MASS + which.sum()
                spread[which] = (_SPREAD_MASS * guess**2 + seen) / mass
        kept = counts / (counts + scatter / spread)
        return replace(self, shift=(kept - 1.0) * above)

    @property
    def _is_damped(self) -> bool:
        return bool(np.count_nonzero(self.trust != 1.0))

    def predict(
        self,
        contexts: FloatArray,
        blank: NDArray[np.bool_],
        departures: FloatArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Return quality and output tokens, each shape ``(n, n_candidates)``.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        blank
            Queries without text: they get the candidates' means.
        departures
            What a prior adds to them, where any head leans on it, shape
            ``(n, n_candidates)``.
        """
        quality = self.quality.predict(contexts)
        if self._is_damped:
            quality = self.mean_quality + self.trust * (quality - self.mean_quality)
        if departures is not None:
            quality = quality + departures
        tokens = _raised(self.length.predict(contexts)) * self.smearing
        if np.count_nonzero(blank):
            quality[blank], tokens[blank] = self.mean_quality, self.mean_output_tokens
        quality = quality + self.shift
        return np.minimum(np.maximum(quality, 0.0), 1.0), tokens

    def select(self, names: Sequence[str]) -> "CandidateHeads":
        """Return the heads of some candidates.

        Parameters
        ----------
        names
            Which, in the new order.
        """
        kept = [self.names.index(name) for name in names]
        return CandidateHeads(
            tuple(names),
            self.quality.select(kept),
            self.length.select(kept),
            self.smearing[kept],
            self.mean_quality[kept],
            self.mean_output_tokens[kept],
            self.n_labels[kept],
            self.shift[kept],
            self.leans[kept],
            self.level[kept],
            self.trust[kept],
        )

    def joined(self, other: "CandidateHeads") -> "CandidateHeads":
        """Return these heads with those of other candidates behind them.

        Parameters
        ----------
        other
            Heads on the same contexts.
        """
        return replace(
            self,
            names=(*self.names, *other.names),
            quality=self.quality.joined(other.quality),
            length=self.length.joined(other.length),
            smearing=np.concatenate([self.smearing, other.smearing]),
            mean_quality=np.concatenate([self.mean_quality, other.mean_quality]),
            mean_output_tokens=np.concatenate(
                [self.mean_output_tokens, other.mean_output_tokens]
            ),
            n_labels=np.concatenate([self.n_labels, other.n_labels]),
            shift=np.concatenate([self.shift, other.shift]),
            leans=np.concatenate([self.leans, other.leans]),
            level=np.concatenate([self.level, other.level]),
            trust=np.concatenate([self.trust, other.trust]),
        )


def _raised(logs: FloatArray) -> FloatArray:
    return np.asarray(np.expm1(np.minimum(np.maximum(logs, 0.0), _LONGEST_LOG)))


def _without_gaps(output_tokens: FloatArray) -> FloatArray:
    """Give a candidate without any known length the mean of the others'."""
    unknown = ~np.isfinite(output_tokens).any(axis=0)
    if not unknown.any():
        return output_tokens
    seen = output_tokens[np.isfinite(output_tokens)]
    filled = output_tokens.copy()
    filled[:, unknown] = seen.mean() if seen.size else UNKNOWN_OUTPUT_TOKENS
    return filled


def _smearing(truth: FloatArray, honest: FloatArray) -> FloatArray:
    """Return mean length over mean raised prediction, out of fold."""
    labelled = np.isfinite(truth)
    real = np.where(labelled, truth, 0.0).sum(axis=0)
    said = np.where(labelled, honest, 0.0).sum(axis=0)
    ratio = np.divide(real, said, out=np.ones_like(real), where=said > 0)
    return np.asarray(np.clip(ratio, *_SMEARING_LIMITS))
