"""What was learned since the last fit: stage 6 as the router uses it.

Uncertainty, residuals and lengths of every candidate in one place, so that
they are started, taught, kept and forgotten together. Takes no lock: the
router holds one.
"""

import math
from collections.abc import Sequence

import numpy as np

from mixllm_integrations.core.bandit import DesignMatrices, ResidualHeads
from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.ledger import PendingDecision
from mixllm_integrations.core.pricing import RunningRatio
from mixllm_integrations.core.types import FloatArray, Outcome

__all__ = ["Experience"]

# Errors of calls of which at least a part was read: the reader went away, the
# answer came from a cache, or broke off.
_JUDGED_ALL_THE_SAME = ("abandoned", "cached", "broken off")

# Our choice, as a ratio of variances: rewards of 0 and 1 scatter by about 0.2,
# and what an offline head misses by about 0.02, over contexts of length² 2.
_RESIDUAL_L2 = 10.0
_OFFLINE_SHARE = 0.02


class Experience:
    """Design matrices, residual heads and length ratios by candidate.

    Parameters
    ----------
    knowledge
        What the offline heads know; its version marks what is learned here.
    l2
        Ridge of the design matrices.
    forgetting
        What a candidate's data are multiplied by at each new observation.
    """

    def __init__(
        self, knowledge: Knowledge, *, l2: float = 1.0, forgetting: float = 1.0
    ) -> None:
        self.version = knowledge.version
        dimension = knowledge.context.dimension
        self.designs = DesignMatrices(dimension, l2=l2, forgetting=forgetting)
        self.residuals = ResidualHeads(
            dimension,
            l2=_RESIDUAL_L2,
            offline_share=_OFFLINE_SHARE,
            forgetting=forgetting,
        )
        self.lengths: dict[str, RunningRatio] = {}
        self.costs: dict[str, RunningRatio] = {}
        self._factors: tuple[FloatArray, FloatArray] | None = None
        self._places: dict[str, int] = {}

    def add(self, name: str) -> None:
        """Start with a candidate, or go on where it was removed.

        Parameters
        ----------
        name
            Whom.
        """
        self.designs.add(name)
        self.residuals.add(name)
        self.lengths.setdefault(name, RunningRatio())
        self.costs.setdefault(name, RunningRatio())
        self._factors = None

    def remove(self, name: str) -> None:
        """Leave a candidate out, but keep its statistics.

        Parameters
        ----------
        name
            Whom.
        """
        self.designs.remove(name)
        self.residuals.remove(name)
        self._factors = None

    def start(
        self, names: Sequence[str], contexts: FloatArray, quality: FloatArray
    ) -> None:
        """Begin anew with candidates whose offline heads are new.

        Parameters
        ----------
        names
            The candidates of the columns.
        contexts
            Shape ``(n_queries, n_features)``.
        quality
            Labels, shape ``(n_queries, n_candidates)``, NaN where unlabelled.
        """
        for name in names:
            self.designs.discard(name)
            self.designs.add(name)
        self.designs.accumulate(contexts, np.isfinite(quality), names)
        for name in names:
            self.residuals.start(name, self.designs.spectrum(name))
            self.lengths[name] = RunningRatio()
            self.costs[name] = RunningRatio()
        self._factors = None

    def teach(self, pending: PendingDecision, reward: float) -> bool:
        """Learn how good the answer of one decision was.

        Parameters
        ----------
        pending
            What the decision was based on.
        reward
            In [0, 1].

        Returns
        -------
        bool
            Whether it taught something: not if the candidate is gone, the heads
            have been fitted anew since, or the call failed before it gave an
            answer: availability is not quality.
        """
        name = pending.candidate
        if _has_failed(pending.outcome):
            return False
        if pending.version != self.version or name not in self.designs.names:
            return False
        context = pending.context.astype(np.float64)
        residual = reward - pending.predicted_quality
        return self.residuals.update(name, context, residual) and self.designs.observe(
            name, context
        )

    def measure(
        self, pending: PendingDecision, outcome: Outcome, cost: float | None
    ) -> None:
        """Learn how long the answer of one decision was, and what it cost.

        Parameters
        ----------
        pending
            What the decision was based on.
        outcome
            What happened; a failed call teaches nothing.
        cost
            In USD; ``None``: unknown.
        """
        if outcome.error is not None or pending.version != self.version:
            return
        name = pending.candidate
        for which, (ratios, real, said) in enumerate(
            (
                (self.lengths, outcome.output_tokens, pending.predicted_output_tokens),
                (self.costs, cost, pending.token_cost),
            )
        ):
            ratio = ratios.get(name)
            if ratio is not None and real and math.isfinite(said) and said > 0:
                ratio.update(real=float(real), predicted=said)
                if self._factors is not None and name in self._places:
                    self._factors[which][self._places[name]] = ratio.value

    def factors(self, names: Sequence[str]) -> tuple[FloatArray, FloatArray]:
        """Return what predicted lengths and costs are to be multiplied by.

        Parameters
        ----------
        names
            The candidates that compete, always the same until one is added
            or removed.

        Returns
        -------
        tuple of FloatArray
            Each of shape ``(len(names),)``; the next outcome changes them.
        """
        if self._factors is None or len(self._factors[0]) != len(names):
            lengths = np.array([self.lengths[name].value for name in names])
            costs = np.array([self.costs[name].value for name in names])
            self._factors = lengths, costs
            self._places = {name: place for place, name in enumerate(names)}
        return self._factors


def _has_failed(outcome: Outcome | None) -> bool:
    """Tell whether a call gave no answer that anybody could judge."""
    error = None if outcome is None else outcome.error
    return error is not None and not error.startswith(_JUDGED_ALL_THE_SAME)
