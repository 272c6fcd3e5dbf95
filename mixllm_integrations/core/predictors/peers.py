"""What other candidates say of a candidate of few labels, or of none.

A query that is easy for one model is mostly easy for the next one, most of all
for one that is about as good. So a candidate without labels follows its peers,
moved to the level that is expected of it; with labels its own head takes over.
Where all have about as many labels nobody follows anybody.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.prior import logit
from mixllm_integrations.core.types import FloatArray

__all__ = ["Peers"]

_HALF_TRUST = 100.0  # labels with which a head counts as much as its peers
_MANY_MORE = 10.0  # times the labels of those who follow: who does not, is followed
_WIDTH = 0.7  # log-odds of quality within which candidates are alike


@dataclass(frozen=True, slots=True, eq=False)
class Peers:
    """Spreads what fitted candidates say over all that compete.

    Parameters
    ----------
    fitted
        Columns of the candidates with heads, shape ``(n_fitted,)``.
    base
        Mean quality expected of every candidate, shape ``(n_candidates,)``.
    mixing
        How much each fitted candidate's departure from its level moves each
        candidate, shape ``(n_fitted, n_candidates)``.
    alone
        Which columns are their own heads' word, as it is.

    Notes
    -----
    Our choice, measured with one candidate left out: see
    `mixllm_integrations.benchmark.coldstart`.

    Examples
    --------
    A newcomer of the same level follows its only peer:

    >>> peers = Peers.of(np.array([0]), np.array([0.5, 0.5]), np.array([5000]))
    >>> peers.spread(np.array([[0.8]])).round(6).tolist()
    [[0.8, 0.8]]
    """

    fitted: NDArray[np.intp]
    base: FloatArray
    mixing: FloatArray
    alone: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        fitted: NDArray[np.intp],
        base_quality: FloatArray,
        n_labels: NDArray[np.int64],
    ) -> "Peers":
        """Return who follows whom, and how far.

        Parameters
        ----------
        fitted
            Columns of the candidates with heads, shape ``(n_fitted,)``.
        base_quality
            What is expected of each candidate on average, shape
            ``(n_candidates,)``.
        n_labels
            Labels of each fitted candidate, shape ``(n_fitted,)``.
        """
        base = np.asarray(base_quality, dtype=np.float64)
        labels = np.zeros(len(base))
        labels[fitted] = n_labels
        own = labels / (labels + _HALF_TRUST)
        own[labels > n_labels.max(initial=0) / _MANY_MORE] = 1.0
        odds = logit(base)
        gaps = (odds[fitted][:, None] - odds) / _WIDTH
        # A floor, so that somebody is followed where nobody is alike.
        near = np.maximum(np.exp(-(gaps**2) / 2), 1e-6) * own[fitted][:, None]
        near = near / np.maximum(near.sum(axis=0), 1e-12)
        mixing = near * (1.0 - own)
        mixing[np.arange(len(fitted)), fitted] += own[fitted]
        return cls(fitted, base, mixing, own >= 1.0)

    @property
    def are_needed(self) -> bool:
        """Whether any candidate is not its own head's word alone."""
        return not bool(self.alone.all())

    def spread(self, quality: FloatArray) -> FloatArray:
        """Return the quality of every candidate, shape ``(n, n_candidates)``.

        Parameters
        ----------
        quality
            What the heads say, shape ``(n, n_fitted)``.
        """
        departures = quality - self.base[self.fitted]
        found = self.base + departures @ self.mixing
        found = np.minimum(np.maximum(found, 0.0), 1.0)
        is_alone = self.alone[self.fitted]
        found[:, self.fitted[is_alone]] = quality[:, is_alone]
        return found
