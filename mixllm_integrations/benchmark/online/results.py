"""What learners reached in streams: rows, summaries, and the goals beside them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

__all__ = [
    "IDLE",
    "WINDOW",
    "LoadFigures",
    "OnlineResult",
    "OnlineRun",
    "Spread",
    "mean_and_spread",
    "windowed",
]

IDLE = "no-online"
WINDOW = 100
_DIGITS = 5
Spread = tuple[float, float]


@dataclass(frozen=True, slots=True)
class OnlineRun:
    """One learner in one stream.

    Parameters
    ----------
    data, seed, stream, learner
        Who, where.
    willingness_to_pay
        USD for one whole point of quality.
    n_steps
        How many queries were asked.
    reward, quality, cost
        Means per query: quality − cost / willingness to pay; cost in USD.
    regret
        Sum over the stream of what the router in hindsight earned beyond it.
    equal_cost
        Its quality in the stream relative to what the router that learns
        nothing reaches at the same cost by another willingness to pay, less 1.
    test_reward
        Mean reward on the queries held out, after the stream.
    test_equal_cost, test_levels, test_aiq
        Its quality there relative to that of the router that learns nothing,
        less 1: at that one's cost, and the mean over levels of the cost; and the
        difference of the average qualities. NaN for a learner that has no curve.
    shares
        Of the traffic, by candidate.
    focus, turning
        Whose share is followed, and at which query something happens to it.
    focus_shares, rewards
        Share of `focus` and mean reward in each window of 100 queries.
    seconds
        What choosing and learning took.
    extra
        What is of interest in this stream alone.
    """

    data: str
    seed: int
    stream: str
    learner: str
    willingness_to_pay: float
    n_steps: int
    reward: float
    quality: float
    cost: float
    regret: float
    equal_cost: float
    test_reward: float
    test_equal_cost: float
    test_levels: float
    test_aiq: float
    shares: dict[str, float]
    focus: str
    turning: int
    focus_shares: tuple[float, ...] = field(repr=False)
    rewards: tuple[float, ...] = field(repr=False)
    seconds: float
    extra: dict[str, float]


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What learning takes of time and memory.

    Parameters
    ----------
    n_feedbacks
        How many were fed, each with its outcome.
    n_candidates, dimension
        Of the router.
    update_p50_seconds, update_p99_seconds
        Of one outcome and its feedback.
    seconds
        Of all of them.
    resident_bytes_before, resident_bytes_after
        Memory after a tenth of them, and at the end; ``None`` where it cannot be
        read.
    state_bytes
        The bandit's statistics in a saved router.
    replay_bytes
        What its heads are fitted from again, beside them.
    """

    n_feedbacks: int
    n_candidates: int
    dimension: int
    update_p50_seconds: float
    update_p99_seconds: float
    seconds: float
    resident_bytes_before: int | None
    resident_bytes_after: int | None
    state_bytes: int
    replay_bytes: int = 0

    @property
    def seconds_per_million(self) -> float:
        """What a million would take."""
        return 1e6 * self.seconds / self.n_feedbacks


@dataclass(frozen=True, slots=True)
class OnlineResult:
    """All runs on one data set.

    Parameters
    ----------
    data, candidates, newcomer, n_queries
        What was measured.
    seeds, streams, learners
        In order.
    willingness_to_pay
        USD per point of quality, and how it was found.
    willingness_rule
        In words.
    settings
        What else was told.
    command, versions
        What is needed to repeat it.
    runs
        What was found.
    load
        Time and memory; ``None`` if not measured.
    """

    data: str
    candidates: tuple[str, ...]
    newcomer: str
    n_queries: int
    seeds: tuple[int, ...]
    streams: tuple[str, ...]
    learners: tuple[str, ...]
    willingness_to_pay: float
    willingness_rule: str
    settings: dict[str, Any]
    command: str
    versions: dict[str, str]
    runs: tuple[OnlineRun, ...] = field(repr=False)
    load: LoadFigures | None = None

    def of(self, stream: str, learner: str) -> tuple[OnlineRun, ...]:
        """Return the runs of a learner in a stream at the usual willingness to pay.

        Parameters
        ----------
        stream, learner
            Which ones.
        """
        return tuple(
            run
            for run in self.runs
            if (run.stream, run.learner) == (stream, learner)
            and run.willingness_to_pay == self.willingness_to_pay
        )

    def spread(self, stream: str, learner: str, figure: str) -> Spread | None:
        """Return mean and standard deviation of a figure over the seeds.

        Parameters
        ----------
        stream, learner
            Whose.
        figure
            A field of `OnlineRun`, a key of its `extra`, or ``"gain"``: the sum of
            rewards beyond that of the router that learns nothing, of the same
            seed.

        Returns
        -------
        tuple of float or None
            ``None`` if it was not measured.
        """
        runs = self.of(stream, learner)
        if figure == "gain":
            idle = {run.seed: run for run in self.of(stream, IDLE)}
            values = [
                run.n_steps * (run.reward - idle[run.seed].reward)
                for run in runs
                if run.seed in idle
            ]
        else:
            values = [
                getattr(run, figure, run.extra.get(figure, math.nan)) for run in runs
            ]
        return mean_and_spread(values)

    def summary(self) -> list[dict[str, Any]]:
        """Return mean and spread over the seeds of every learner in every stream."""
        figures = (
            *("gain", "reward", "quality", "cost", "regret", "equal_cost"),
            *("test_reward", "test_equal_cost", "test_levels", "test_aiq"),
        )
        rows = []
        for stream in self.streams:
            for learner in self.learners:
                if not self.of(stream, learner):
                    continue
                row: dict[str, Any] = {"stream": stream, "learner": learner}
                for figure in figures:
                    found = self.spread(stream, learner, figure)
                    row[figure], row[f"{figure}_spread"] = found or (None, None)
                rows.append(row)
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain lists, numbers and strings; NaN as null."""
        from mixllm_integrations.benchmark.online.goals import goals

        found = asdict(self)
        found["summary"] = self.summary()
        found["goals"] = [asdict(goal) for goal in goals(self)]
        plain: dict[str, Any] = _plain(found)
        return plain


def mean_and_spread(values: Iterable[float]) -> Spread | None:
    """Return mean and standard deviation of the numbers among some values.

    Parameters
    ----------
    values
        NaN where there is none.

    Examples
    --------
    >>> mean_and_spread([1.0, 3.0, float("nan")])
    (2.0, 1.0)
    """
    known = [v for v in values if not math.isnan(v)]
    return (float(np.mean(known)), float(np.std(known))) if known else None


def windowed(values: Sequence[float], window: int = WINDOW) -> tuple[float, ...]:
    """Return the means of consecutive windows; the last one may be shorter.

    Parameters
    ----------
    values
        In order.
    window
        How many at a time.

    Examples
    --------
    >>> windowed([1.0, 0.0, 1.0], 2)
    (0.5, 1.0)
    """
    starts = range(0, len(values), window)
    return tuple(float(np.mean(values[s : s + window])) for s in starts)


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return None if math.isnan(value) else _rounded(value)
    return value


def _rounded(value: float) -> float:
    """Keep five digits behind the point, or of those that a small number has."""
    return round(value, _DIGITS) if abs(value) >= 0.1 else float(f"{value:.{_DIGITS}g}")
