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
from mixllm_integrations.core.types import Candidate, FloatArray

__all__ = ["UNKNOWN_OUTPUT_TOKENS", "CandidateHeads", "prior_quality"]

UNKNOWN_OUTPUT_TOKENS = 256.0  # where no length was ever seen (our choice)
_LONGEST = 200_000.0
_SMEARING_LIMITS = (0.2, 5.0)
# Least squares over the 26 models recorded in two public data sets: mean
# quality against log10 of the blended list price (3 input : 1 output).
_PRIOR_AT_ONE_DOLLAR, _PRIOR_PER_DECADE = 0.53, 0.16
_PRIOR_LIMITS = (0.2, 0.9)
_FEW_LABELS, _PRIOR_LABELS = 20, 5.0
_CLASS_WIDTH = 0.3  # decades of price within which candidates are alike


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
        What is added to the quality of heads of very few labels.
    """

    names: tuple[str, ...]
    quality: HeadBank
    length: HeadBank
    smearing: FloatArray
    mean_quality: FloatArray
    mean_output_tokens: FloatArray
    n_labels: NDArray[np.int64]
    shift: FloatArray

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

        Notes
        -----
        Source: MixLLM Eq. 4 and 5. Logarithm and smearing are our choice.
        """
        bank, _, _ = fit_heads(contexts, quality, predictor=predictor, seed=seed)
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
            column_means(quality),
            column_means(lengths),
            np.isfinite(quality).sum(axis=0),
            np.zeros(len(names)),
        )

    def leaning(self, candidates: Sequence[Candidate]) -> "CandidateHeads":
        """Return these heads, those of few labels moved towards their priors.

        Parameters
        ----------
        candidates
            Whose heads they are, in the same order.

        Notes
        -----
        Our choice: with fewer than 20 labels the prior counts as 5 more.
        """
        means, counts = self.mean_quality, self.n_labels
        few = counts < _FEW_LABELS
        trusted = [
            (candidate, float(mean))
            for candidate, mean, is_few in zip(candidates, means, few, strict=True)
            if not is_few
        ]
        priors = np.array([prior_quality(c, trusted) for c in candidates])
        weight = np.where(few, _PRIOR_LABELS, 0.0)
        shift = weight * (priors - means) / np.maximum(counts + weight, 1.0)
        return replace(self, shift=shift)

    def predict(
        self, contexts: FloatArray, blank: NDArray[np.bool_]
    ) -> tuple[FloatArray, FloatArray]:
        """Return quality and output tokens, each shape ``(n, n_candidates)``.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        blank
            Queries without text: they get the candidates' means.
        """
        quality = self.quality.predict(contexts)
        tokens = _raised(self.length.predict(contexts)) * self.smearing
        if blank.any():
            quality[blank], tokens[blank] = self.mean_quality, self.mean_output_tokens
        return np.clip(quality + self.shift, 0.0, 1.0), tokens

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
        )


def _raised(logs: FloatArray) -> FloatArray:
    return np.expm1(np.clip(logs, 0.0, np.log1p(_LONGEST)))


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
