"""Who chooses in a stream, and hears of the chosen answers alone.

`play` shows a stream to a learner query by query. Learners whose knowledge does
not depend on the feedback choose all at once instead: see `frozen_choices`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.metrics import choose
from mixllm_integrations.benchmark.online.streams import Change, Stream
from mixllm_integrations.benchmark.online.worlds import Expected
from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Decision, FloatArray, Outcome

__all__ = [
    "HeldOut",
    "Learner",
    "Played",
    "RouterLearner",
    "Spending",
    "frozen_choices",
    "held_out_by",
    "play",
    "refitted_over_time",
    "whole",
]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """What a learner makes of the queries held out, after the stream.

    Parameters
    ----------
    chosen
        Columns at the stream's willingness to pay, shape ``(n_test,)``.
    quality, cost
        What it expects, shape ``(n_test, n_candidates)``; ``None`` if it
        expects no quality and cost apart from each other.
    """

    chosen: NDArray[np.int64]
    quality: FloatArray | None = None
    cost: FloatArray | None = None


@dataclass(slots=True)
class Spending:
    """What choices that differ from the greedy ones were expected to cost more.

    Parameters
    ----------
    explored
        How many there were.
    extra_cost
        In USD; those that were cheaper save nothing.
    """

    explored: int = 0
    extra_cost: float = 0.0

    def add(self, decision: Decision) -> None:
        """Count a decision.

        Parameters
        ----------
        decision
            By a router that charges no waiting.
        """
        if not decision.explored:
            return
        usable = {n: p for n, p in decision.scores.items() if p.score > -math.inf}
        each = decision.willingness_to_pay
        greedy = max(usable.values(), key=lambda p: p.quality - p.cost / each)
        self.explored += 1
        self.extra_cost += max(decision.prediction.cost - greedy.cost, 0.0)


class Learner(Protocol):
    """Chooses, and learns from what it is told."""

    def choose(self, step: int) -> int:
        """Return the column that a query goes to."""
        ...

    def billed(self, step: int, column: int, cost: float) -> None:
        """Hear what the answer cost, in USD."""
        ...

    def hear(self, step: int, column: int, reward: float) -> None:
        """Hear how good the answer was."""
        ...

    def change(self, change: Change) -> None:
        """Hear that a candidate joins, leaves, or has another price."""
        ...

    def pause(self, step: int) -> None:
        """Do what takes its time; the stream waits."""
        ...

    def held_out(self) -> HeldOut:
        """Return what it makes of the queries held out, without exploring."""
        ...

    def extra(self) -> dict[str, float]:
        """Return what else is to be noted."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What came of a learner in a stream.

    Parameters
    ----------
    chosen
        Columns, shape ``(n_steps,)``.
    held_out
        On the queries held out.
    extra
        What else was noted.
    """

    chosen: NDArray[np.int64]
    held_out: HeldOut
    extra: Mapping[str, float] = field(default_factory=dict)


def play(stream: Stream, learner: Learner, *, pause_every: int) -> Played:
    """Show a stream to a learner.

    Parameters
    ----------
    stream
        What is asked.
    learner
        Who has been fitted on the offline part.
    pause_every
        After how many queries, and after the last one, it may fit anew.
    """
    changes: dict[int, list[Change]] = {}
    for change in stream.changes:
        changes.setdefault(change.step, []).append(change)
    waiting: dict[int, list[int]] = {}
    chosen = np.zeros(len(stream), dtype=np.int64)

    def hear(steps: Sequence[int]) -> None:
        for step in steps:
            column = int(chosen[step])
            learner.hear(step, column, float(stream.said[step, column]))

    for step in range(len(stream)):
        for change in changes.get(step, ()):
            learner.change(change)
        column = learner.choose(step)
        chosen[step] = column
        learner.billed(step, column, float(stream.cost[step, column]))
        if not math.isnan(stream.said[step, column]):
            waiting.setdefault(int(stream.due[step]), []).append(step)
        hear(waiting.pop(step, ()))
        if (step + 1) % pause_every == 0 and step + 1 < len(stream):
            learner.pause(step + 1)
    for due in sorted(waiting):
        hear(waiting[due])
    learner.pause(len(stream))
    return Played(chosen, learner.held_out(), learner.extra())


class RouterLearner:
    """The router itself, by its public interface.

    Parameters
    ----------
    router
        Fitted; it goes on learning, so pass a copy.
    stream
        Which columns there are.
    asked, test
        The queries.
    willingness_to_pay
        USD for one whole point of quality.
    refit
        Whether it fits its heads anew in pauses, where it can.
    """

    def __init__(
        self,
        router: Router,
        stream: Stream,
        asked: BenchmarkTable,
        test: BenchmarkTable,
        *,
        willingness_to_pay: float,
        refit: bool = True,
    ) -> None:
        self._router, self._stream = router, stream
        self._asked, self._test = asked, test
        self._columns = {name: i for i, name in enumerate(stream.names)}
        self._ids: dict[int, str] = {}
        self._refit, self._refits = refit, 0
        self._spending = Spending()
        self._alarms: list[tuple[int, str]] = []
        self._heard = 0
        router.willingness_to_pay = willingness_to_pay

    def choose(self, step: int) -> int:
        """Return the column that a query goes to."""
        decision = self._router.route(self._asked.queries[step], charge_load=False)
        self._ids[step] = decision.id
        self._spending.add(decision)
        return self._columns[decision.candidate]

    def billed(self, step: int, column: int, cost: float) -> None:
        """Record an outcome with the recorded lengths, as far as they are known."""
        outcome = Outcome(
            whole(self._asked.input_tokens[step, column]),
            whole(self._asked.output_tokens[step, column]),
            cost=cost,
        )
        self._router.record_outcome(self._ids[step], outcome)

    def hear(self, step: int, column: int, reward: float) -> None:
        """Record the feedback."""
        del column
        self._router.record_feedback(
            self._ids.pop(step), reward, kind=self._stream.kind
        )
        drifts: Sequence[Any] = getattr(self._router, "drifts", ())
        known = len(self._alarms)
        self._alarms += [(step, str(d.candidate)) for d in drifts[known:]]

    def change(self, change: Change) -> None:
        """Tell the router."""
        if change.kind == "leave":
            self._router.remove_candidate(change.candidate.name)
        elif change.kind == "join":
            self._router.add_candidate(change.candidate)
        else:
            self._router.replace_candidate(change.candidate)

    def pause(self, step: int) -> None:
        """Fit the heads anew on what was observed, if the router can."""
        del step
        refit = getattr(self._router, "refit", None)
        if self._refit and refit is not None:
            self._refits += bool(refit())

    def held_out(self) -> HeldOut:
        """Return what it expects of the queries held out."""
        found = self._router.predict(list(self._test.queries))
        columns = [self._columns[name] for name in found.candidates]
        shape = (len(self._test), len(self._columns))
        quality, cost = np.full(shape, -np.inf), np.zeros(shape)
        quality[:, columns], cost[:, columns] = found.quality, found.cost
        chosen = choose(quality, cost, self._router.willingness_to_pay)
        return HeldOut(chosen, quality, cost)

    def extra(self) -> dict[str, float]:
        """Return refits, what exploration cost, and when drift was noticed."""
        focus, turning = self._stream.focus, self._stream.turning
        after = [s for s, name in self._alarms if name == focus and s >= turning]
        return {
            "refits": self._refits,
            "explored": self._spending.explored,
            "explored_cost": self._spending.extra_cost,
            "false_alarms": len(self._alarms) - len(after),
            "alarm_after": after[0] - turning if after else math.nan,
        }


def frozen_choices(
    expected: Expected, stream: Stream, willingness_to_pay: float
) -> NDArray[np.int64]:
    """Return whom each query goes to, where nothing is learned on the way.

    Parameters
    ----------
    expected
        At list prices; a change of a price takes effect at once.
    stream
        Who competes when.
    willingness_to_pay
        USD for one whole point of quality.
    """
    n = len(stream)
    quality = np.where(stream.present(), expected.quality[:n], -np.inf)
    cost = expected.cost[:n] * stream.price_factors()
    return choose(quality, cost, willingness_to_pay)


def held_out_by(
    expected: Expected, stream: Stream, willingness_to_pay: float
) -> HeldOut:
    """Return what is made of the queries held out, in the world after a stream.

    Parameters
    ----------
    expected
        At list prices.
    stream
        Who competes after its last query, and at which price.
    willingness_to_pay
        USD for one whole point of quality.
    """
    quality = np.where(stream.present()[-1], expected.test_quality, -np.inf)
    cost = expected.test_cost * stream.price_factors()[-1]
    return HeldOut(choose(quality, cost, willingness_to_pay), quality, cost)


def refitted_over_time(
    idle: Expected, refits: Sequence[tuple[int, Expected]], stream: Stream
) -> Expected:
    """Return what is expected of each query by the latest fit before it.

    Parameters
    ----------
    idle
        What is expected before the first of them.
    refits
        With the number of queries of the stream whose labels they know.
    stream
        Its length decides which fit is the last one.
    """
    n = len(stream)
    quality, cost = idle.quality[:n].copy(), idle.cost[:n].copy()
    last = idle
    for end, expected in refits:
        if end > n:
            break
        quality[end:], cost[end:] = expected.quality[end:n], expected.cost[end:n]
        last = expected
    return Expected(quality, cost, last.test_quality, last.test_cost)


def whole(value: float) -> int:
    """Return a recorded length, 0 where none was recorded."""
    return 0 if math.isnan(value) else round(float(value))
