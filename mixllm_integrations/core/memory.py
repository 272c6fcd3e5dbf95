"""What is kept of each candidate since the last fit: stage 6, all rooms as one.

Uncertainty, residuals, lengths, trials and alarms of every candidate in one
place, so that they are started, kept and forgotten together. `experience` adds
how they learn. Takes no lock: the router holds one.
"""

import math
from collections.abc import Callable, Collection, Sequence
from copy import deepcopy

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.bandit import DesignMatrices, ResidualHeads
from mixllm_integrations.core.drift import DriftWatch
from mixllm_integrations.core.exploring import Trials
from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.policy_gradient import FeedbackHead
from mixllm_integrations.core.pricing import RunningRatio
from mixllm_integrations.core.reliability import Reliability
from mixllm_integrations.core.replay import Replay
from mixllm_integrations.core.second_looks import SecondLooks
from mixllm_integrations.core.settings import RouterSettings
from mixllm_integrations.core.signals import ImplicitSignals
from mixllm_integrations.core.types import FloatArray

__all__ = ["REWARD_VARIANCE", "Memory"]

REWARD_VARIANCE = 0.2  # of a reward of 0 or 1 around what was expected
# Our choice, as a ratio of variances: what is expected of an unknown candidate
# misses by about 0.04, over contexts of length² 2; what a head of n labels misses
# is 1 + n / 100 times less.
_RESIDUAL_L2 = 10.0
_OFFLINE_SHARE = 0.002
_LABELS_TO_HALVE = 100.0


class Memory:
    """Everything that was learned online, by candidate.

    Parameters
    ----------
    knowledge
        What the offline heads know; its version marks what is learned here.
    settings
        Of the router.

    Attributes
    ----------
    labels
        How many labels stand behind each offline head.
    bases
        What is expected of candidates without a head, once something was learned
        beyond it: a price or another candidate must not move it any more.
    levels
        What an alarm has moved each candidate by, in units of quality.
    """

    def __init__(self, knowledge: Knowledge, settings: RouterSettings) -> None:
        self.version, self.revision = knowledge.version, knowledge.revision
        dimension = knowledge.context.dimension
        forgetting = settings.forgetting
        self.designs = DesignMatrices(dimension, l2=settings.l2, forgetting=forgetting)
        self.residuals = ResidualHeads(
            dimension,
            l2=_RESIDUAL_L2,
            offline_share=_OFFLINE_SHARE,
            forgetting=forgetting,
        )
        self.lengths: dict[str, RunningRatio] = {}
        self.costs: dict[str, RunningRatio] = {}
        self.labels: dict[str, float] = {}
        self.levels: dict[str, float] = {}
        self.bases: dict[str, float] = {}
        self.replay = Replay(dimension)
        self.drift = DriftWatch()
        self.reliability = Reliability()
        self.signals = ImplicitSignals(settings.implicit_signals)
        self.trials = Trials()
        self.looks = SecondLooks()
        self.feedback_head: FeedbackHead | None = None
        if settings.binary_feedback == "policy_gradient":
            self.feedback_head = FeedbackHead(dimension, seed=settings.seed)
        self._factors: tuple[FloatArray, FloatArray] | None = None
        self._places: dict[str, int] = {}

    @property
    def _rooms(self) -> tuple[DesignMatrices | ResidualHeads | FeedbackHead, ...]:
        rooms = (self.designs, self.residuals)
        return rooms if self.feedback_head is None else (*rooms, self.feedback_head)

    @property
    def refused(self) -> int:
        """How many updates would have made a matrix infinite or indefinite."""
        return sum(room.refused for room in self._rooms)

    @property
    def _watches(
        self,
    ) -> tuple[DriftWatch | Trials | SecondLooks | Reliability | ImplicitSignals, ...]:
        return self.drift, self.trials, self.looks, self.reliability, self.signals

    def add(self, name: str) -> None:
        """Start with a candidate, or go on where it was removed.

        Parameters
        ----------
        name
            Whom.
        """
        for room in self._rooms:
            room.add(name)
        self.complete(name)

    def complete(self, name: str) -> None:
        """Give a candidate that competes whatever it lacks.

        Parameters
        ----------
        name
            Whom.
        """
        self.lengths.setdefault(name, RunningRatio())
        self.costs.setdefault(name, RunningRatio())
        self.labels.setdefault(name, 0.0)
        self.levels.setdefault(name, 0.0)
        self.drift.add(name)
        self._factors = None

    def welcome(self, name: str) -> None:
        """Give a newcomer a fair trial if there is anybody to compare it with.

        Parameters
        ----------
        name
            Whom; it has been added.
        """
        others = [n for n in self.designs.names if n != name]
        known = max(
            (max(self.labels[n], self.replay.labels(n)) for n in others), default=0
        )
        is_new = name in self.trials or not self.replay.labels(name)
        if is_new and known >= _LABELS_TO_HALVE:
            self.trials.begin(name)

    def remove(self, name: str) -> None:
        """Leave a candidate out, but keep its statistics.

        Parameters
        ----------
        name
            Whom.
        """
        for room in self._rooms:
            room.remove(name)
        self.trials.end(name)
        self._factors = None

    def rename(self, old: str, new: str) -> None:
        """Go on with a candidate under another name.

        Parameters
        ----------
        old, new
            Its names; whatever was kept of the new one is forgotten.
        """
        for room in self._rooms:
            room.discard(new)
            room.rename(old, new)
        for by_name in (self.lengths, self.costs, self.labels, self.levels):
            by_name[new] = by_name.pop(old)  # type: ignore[assignment]
        self.bases.pop(new, None)
        if old in self.bases:
            self.bases[new] = self.bases.pop(old)
        for watch in self._watches:
            watch.discard(new)
            watch.rename(old, new)
        self.replay.rename(old, new)
        self._factors = None

    def start(
        self,
        names: Sequence[str],
        contexts: FloatArray,
        quality: FloatArray,
        tokens: FloatArray,
    ) -> None:
        """Begin anew with candidates whose offline heads are new.

        Parameters
        ----------
        names
            The candidates of the columns.
        contexts
            Shape ``(n_queries, n_features)``.
        quality, tokens
            Labels, shape ``(n_queries, n_candidates)``, NaN where unlabelled.
        """
        labelled = np.isfinite(quality)
        for name in names:
            for room in self._rooms:
                room.discard(name)
                room.add(name)
        self.designs.accumulate(contexts, labelled, names)
        self.replay.start(names, contexts, quality, tokens)
        for name, count in zip(names, labelled.sum(axis=0).tolist(), strict=True):
            self.residuals.start(name, self.designs.seen(name))
            self.lengths[name] = RunningRatio()
            self.costs[name] = RunningRatio()
            self.labels[name], self.levels[name] = float(count), 0.0
            self.bases.pop(name, None)
            self.drift.reset(name)
            self.looks.discard(name)
            self.trials.end(name)
        self._factors = None

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

    def corrections(
        self, contexts: NDArray[np.floating], names: Sequence[str]
    ) -> FloatArray:
        """Return what to add to the offline quality, shape ``(n, len(names))``.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        names
            Of whom.
        """
        found = self.residuals.correct(contexts, names)
        if any(self.levels.values()):
            found = found + np.array([self.levels[name] for name in names])
        if self.feedback_head is not None:
            found = found + self.scores(contexts, names)
        return found

    def frozen_corrections(
        self, names: Sequence[str]
    ) -> Callable[[FloatArray], tuple[FloatArray, FloatArray]]:
        """Return a function of contexts that gives `corrections` and `scores`.

        Both as they are now, whatever is learned meanwhile: it needs no lock.

        Parameters
        ----------
        names
            Of whom.
        """
        solutions, order = self.residuals.solutions(names), tuple(names)
        levels = np.array([self.levels[name] for name in order])
        head = deepcopy(self.feedback_head)

        def frozen(contexts: FloatArray) -> tuple[FloatArray, FloatArray]:
            found = np.einsum("nd,kd->nk", contexts, solutions) + levels
            if head is None:
                return found, np.zeros(found.shape)
            scores = head.scores(contexts, order)
            return found + scores, scores

        return frozen

    def scores(
        self, contexts: NDArray[np.floating], names: Sequence[str]
    ) -> FloatArray:
        """Return what of it is the feedback head's, 0 without one.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        names
            Of whom.
        """
        if self.feedback_head is None:
            return np.zeros((len(contexts), len(names)))
        return self.feedback_head.scores(contexts, names)

    def optimism(self, names: Sequence[str]) -> FloatArray | None:
        """Return what speaks for trying each candidate, in units of quality.

        Parameters
        ----------
        names
            The candidates.

        Returns
        -------
        FloatArray or None
            Shape ``(len(names),)``, 0 for most; ``None`` if nobody has a bonus.
        """
        bonus = self.trials.optimism(names)
        if self.looks.bonuses:
            again = np.array([self.looks.bonuses.get(name, 0.0) for name in names])
            bonus = again if bonus is None else np.maximum(again, bonus)
        return bonus

    def spreads(
        self, contexts: NDArray[np.floating], names: Sequence[str]
    ) -> FloatArray:
        """Return standard deviations of the quality that is expected.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        names
            Of whom.

        Returns
        -------
        FloatArray
            Of the posterior of the online heads, shape ``(n, len(names))``.
        """
        scale = np.array([math.sqrt(REWARD_VARIANCE * self._gain(n)) for n in names])
        return np.asarray(self.residuals.widths(contexts, names) * scale)

    def discard(self, names: Collection[str]) -> None:
        """Forget candidates altogether.

        Parameters
        ----------
        names
            Whom.
        """
        for name in names:
            for room in self._rooms:
                room.discard(name)
            for by_name in (
                *(self.lengths, self.costs, self.labels, self.levels),
                self.bases,
            ):
                by_name.pop(name, None)
            for watch in self._watches:
                watch.discard(name)
            self.replay.discard(name)
        self._factors = None

    def _learn(
        self, name: str, context: FloatArray, residual: float, weight: float
    ) -> bool:
        gain = self._gain(name)
        return self.residuals.update(name, context, residual, weight * gain)

    def _gain(self, name: str) -> float:
        """Return what one observation counts: less, the better the head is known."""
        return 1.0 / (1.0 + self.labels[name] / _LABELS_TO_HALVE)

    def _refresh(self, which: int, name: str, ratio: RunningRatio) -> None:
        if self._factors is not None and name in self._places:
            self._factors[which][self._places[name]] = ratio.value
