"""From whom a learner chose to the figures of a run."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.metrics import (
    COST_LEVELS,
    Curve,
    ReferencePoint,
    aiq,
    best_so_far,
    choose,
    reference_point,
    sweep,
    willingness_grid,
)
from mixllm_integrations.benchmark.online.learners import (
    HeldOut,
    Played,
    frozen_choices,
    held_out_by,
)
from mixllm_integrations.benchmark.online.results import OnlineRun, windowed
from mixllm_integrations.benchmark.online.streams import Stream
from mixllm_integrations.benchmark.online.worlds import World
from mixllm_integrations.core.types import FloatArray

__all__ = ["Scorer", "own_until_half", "queries_until"]

# Our choices: long enough that chance seldom passes for a change.
_TRAILING = 250
_BEFORE, _TRAILING_DEGRADED = 500, 200


class Scorer:
    """Judges all learners in one stream beside the router that learns nothing.

    Parameters
    ----------
    world, stream
        Where.
    willingness_to_pay
        USD for one whole point of quality.
    data
        Name of the data set.
    """

    def __init__(
        self, world: World, stream: Stream, willingness_to_pay: float, data: str
    ) -> None:
        self._world, self._stream, self._data = world, stream, data
        self._value = willingness_to_pay
        start = world.start_of(stream.name)
        hindsight = world.hindsight[world.labels_of(stream.name)]
        self._bound = self._rewards(frozen_choices(hindsight, stream, self._value))
        self._idle = held_out_by(world.idle[start], stream, self._value)
        self._on_stream = self._stream_curve(start)
        self._here = np.flatnonzero(stream.present()[-1])
        everyone = np.arange(len(stream.test_quality))
        self._whole = _Comparison(self, self._idle, everyone)

    def run(self, learner: str, played: Played, *, seconds: float) -> OnlineRun:
        """Return the figures of a learner.

        Parameters
        ----------
        learner
            Its name.
        played
            What came of it.
        seconds
            How long it took.
        """
        stream, chosen = self._stream, played.chosen
        rows = np.arange(len(stream))
        quality, cost = stream.quality[rows, chosen], stream.cost[rows, chosen]
        rewards = self._rewards(chosen)
        column = stream.names.index(stream.focus)
        of_test = np.arange(len(stream.test_quality)), played.held_out.chosen
        reached = self._whole.reached(played.held_out)
        test = stream.test_quality[of_test] - stream.test_cost[of_test] / self._value
        return OnlineRun(
            data=self._data,
            seed=self._world.site.seed,
            stream=stream.name,
            learner=learner,
            willingness_to_pay=self._value,
            n_steps=len(stream),
            reward=float(rewards.mean()),
            quality=float(quality.mean()),
            cost=float(cost.mean()),
            regret=float((self._bound - rewards).sum()),
            equal_cost=float(quality.mean()) / self._idle_at(float(cost.mean())) - 1.0,
            test_reward=float(test.mean()),
            test_equal_cost=reached[0],
            test_levels=reached[1],
            test_aiq=reached[2],
            shares=_shares(stream.names, chosen),
            focus=stream.focus,
            turning=stream.turning,
            focus_shares=windowed((chosen == column).astype(float).tolist()),
            rewards=windowed(rewards.tolist()),
            seconds=seconds,
            extra=self._extra(played, float(cost.sum())),
        )

    def curve(self, found: HeldOut, rows: NDArray[np.int64]) -> Curve | None:
        """Return quality over cost on some of the queries held out.

        Parameters
        ----------
        found
            What is expected of them; ``None`` is returned if nothing is.
        rows
            Which queries.
        """
        if found.quality is None or found.cost is None:
            return None
        at = np.ix_(rows, self._here)
        reference = self.reference(rows)
        grid = np.append(willingness_grid(reference.cost), self._value)
        return sweep(
            found.quality[at],
            found.cost[at],
            true_quality=self._stream.test_quality[at],
            true_cost=self._stream.test_cost[at],
            reference=reference,
            willingness=np.sort(grid),
        )

    def reference(self, rows: NDArray[np.int64]) -> ReferencePoint:
        """Return what curves on some of the queries held out are relative to."""
        at = np.ix_(rows, self._here)
        return reference_point(
            self._stream.quality[:, self._here],
            self._stream.test_quality[at],
            self._stream.test_cost[at],
        )

    def test_cost(self, found: HeldOut, rows: NDArray[np.int64]) -> float:
        """Return the mean cost (USD) of somebody's choices of queries held out."""
        return float(self._stream.test_cost[rows, found.chosen[rows]].mean())

    def _rewards(self, chosen: NDArray[np.int64]) -> FloatArray:
        at = np.arange(len(self._stream)), chosen
        found = self._stream.quality[at] - self._stream.cost[at] / self._value
        return np.asarray(found, dtype=np.float64)

    def _stream_curve(self, start: str) -> tuple[FloatArray, FloatArray]:
        """Return cost and quality in the stream of who learns nothing."""
        stream, rows = self._stream, np.arange(len(self._stream))
        expected = self._world.idle[start]  # type: ignore[index]
        quality = np.where(stream.present(), expected.quality[: len(stream)], -np.inf)
        cost = expected.cost[: len(stream)] * stream.price_factors()
        grid = willingness_grid(float(stream.cost.mean(axis=0).max()))
        points = []
        for value in np.sort(np.append(grid, self._value)):
            chosen = choose(quality, cost, float(value))
            at = rows, chosen
            points.append((stream.cost[at].mean(), stream.quality[at].mean()))
        costs, qualities = np.asarray(sorted(points), dtype=np.float64).T
        return costs, qualities

    def _idle_at(self, cost: float) -> float:
        """Return the quality of who learns nothing at a cost, between its points."""
        return float(np.interp(cost, *self._on_stream))

    def _extra(self, played: Played, cost: float) -> dict[str, float]:
        found = dict(played.extra)
        if "explored_cost" in found:
            found["explored_cost_share"] = found["explored_cost"] / max(cost, 1e-300)
        name = self._stream.name
        if name == "newcomer":
            found |= self._newcomer(played)
        elif name == "degraded":
            column = self._stream.names.index(self._stream.focus)
            is_focus = played.chosen == column
            found |= own_until_half(is_focus, self._stream.turning)
        elif name == "unseen-domains":
            found |= self._unseen(played.held_out)
        return found

    def _newcomer(self, played: Played) -> dict[str, float]:
        column = self._stream.names.index(self._stream.focus)
        after = played.chosen[self._stream.turning :] == column
        _, informed = self._world.refits["plain"][-1]
        deserved = held_out_by(informed, self._stream, self._value).chosen == column
        share = float(deserved.mean())
        return {
            "informed_share": share,
            "late_share": float(after[-500:].mean()),
            "queries_to_90": queries_until(after, 0.9 * share),
        }

    def _unseen(self, found: HeldOut) -> dict[str, float]:
        """Return what is lost in the unseen domains beside a router fitted on all."""
        world = self._world
        domains = world.ground.test.domains
        rows = np.array([i for i, d in enumerate(domains) if d in world.unseen], int)
        all_domains = held_out_by(world.idle["usual"], self._stream, self._value)
        if not rows.size:
            return {}
        beside = _Comparison(self, all_domains, rows)
        figures = ("loss", "loss_levels", "loss_aiq")
        reached = beside.reached(found)
        before = beside.reached(self._idle)
        return {
            **{k: -v for k, v in zip(figures, reached, strict=True)},
            **{f"{k}_before": -v for k, v in zip(figures, before, strict=True)},
        }


class _Comparison:
    """Compares curves with one, on the same queries."""

    def __init__(self, scorer: Scorer, base: HeldOut, rows: NDArray[np.int64]) -> None:
        self._scorer, self._rows = scorer, rows
        self._reference = scorer.reference(rows)
        self._base = scorer.curve(base, rows)
        self._cost = scorer.test_cost(base, rows) / self._reference.cost

    def reached(self, found: HeldOut) -> tuple[float, float, float]:
        """Return the gain at the same cost, over levels of it, and of the area."""
        curve = self._scorer.curve(found, self._rows)
        if curve is None or self._base is None:
            return math.nan, math.nan, math.nan
        at = np.array([self._cost, *COST_LEVELS])
        gains = best_so_far(curve, at) / best_so_far(self._base, at) - 1.0
        levels = gains[1:][np.isfinite(gains[1:])]
        area = aiq(curve, self._reference) - aiq(self._base, self._reference)
        return float(gains[0]), float(levels.mean()) if levels.size else math.nan, area


def queries_until(
    is_chosen: NDArray[np.bool_], share: float, *, trailing: int = _TRAILING
) -> float:
    """Return after how many queries the latest ones reach a share of the traffic.

    Parameters
    ----------
    is_chosen
        Query by query, from the first one on.
    share
        Which one.
    trailing
        How many of the latest ones are looked at.

    Returns
    -------
    float
        Infinity if they never do, NaN if the share is 0 anyway.

    Examples
    --------
    >>> queries_until(np.array([False, True, True, True]), 1.0, trailing=2)
    3.0
    """
    if share <= 0.0:
        return math.nan
    sums = np.convolve(is_chosen.astype(float), np.ones(trailing))[: len(is_chosen)]
    reached = np.flatnonzero(sums[trailing - 1 :] >= share * trailing - 1e-9)
    return float(reached[0] + trailing) if reached.size else math.inf


def own_until_half(
    is_chosen: NDArray[np.bool_],
    turning: int,
    *,
    before: int = _BEFORE,
    trailing: int = _TRAILING_DEGRADED,
) -> dict[str, float]:
    """Return how many queries somebody still got until half of its traffic was gone.

    Parameters
    ----------
    is_chosen
        Query by query.
    turning
        From which query on it should lose traffic.
    before
        Over how many queries before that its share is measured.
    trailing
        Over how many of the latest ones since then.

    Returns
    -------
    dict of str to float
        ``share_before``, ``late_share`` over the last `before` queries, and
        ``own_to_half``: infinity if it never lost half.

    Examples
    --------
    Half of the traffic before, then two more queries in four, then none.

    >>> seen = np.array([1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0], dtype=bool)
    >>> own_until_half(seen, 4, before=4, trailing=4)["own_to_half"]
    2.0
    """
    share = float(is_chosen[max(turning - before, 0) : turning].mean())
    after = is_chosen[turning:].astype(float)
    sums = np.convolve(after, np.ones(trailing))[: len(after)]
    gone = np.flatnonzero(sums[trailing - 1 :] <= share / 2 * trailing + 1e-9)
    own = float(after[: gone[0] + trailing].sum()) if gone.size else math.inf
    late = float(after[-before:].mean())
    return {"share_before": share, "late_share": late, "own_to_half": own}


def _shares(names: Sequence[str], chosen: NDArray[np.int64]) -> dict[str, float]:
    counts = np.bincount(chosen, minlength=len(names)) / len(chosen)
    return {n: float(c) for n, c in zip(names, counts, strict=True) if c > 0}
