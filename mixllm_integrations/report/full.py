"""All that a report tells of a window of traffic, in one value."""

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.offpolicy import Interval
from mixllm_integrations.report.comparison import Comparison, compare
from mixllm_integrations.report.details import (
    Bin,
    DomainRow,
    Latency,
    SharesOverTime,
    bins_of,
    domain_rows,
    latencies,
    shares_over_time,
)
from mixllm_integrations.report.intervals import mean_interval
from mixllm_integrations.report.overview import Overview, overview
from mixllm_integrations.report.regret import (
    Exploration,
    Regret,
    exploration,
    regrets,
)
from mixllm_integrations.report.traffic import Traffic
from mixllm_integrations.report.window import Alarm

__all__ = ["RecordedCurve", "Report", "make_report", "plain"]


@dataclass(frozen=True, slots=True)
class RecordedCurve:
    """Quality against cost on labelled answers, where every answer is known.

    Parameters
    ----------
    source
        Where the labels come from.
    lines
        Name, role, and points of each line: USD per query and quality.
    points
        Name and place of each candidate alone.
    now
        Where the router is with its willingness to pay.
    queries
        How many were asked.
    """

    source: str
    lines: tuple[
        tuple[str, Literal["ours", "mix", "bound"], tuple[tuple[float, float], ...]],
        ...,
    ]
    points: tuple[tuple[str, float, float], ...]
    now: tuple[float, float]
    queries: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a window of traffic came to, and what to make of it.

    It shows itself in a notebook as the page that `to_html` gives.

    Parameters
    ----------
    source
        What was read.
    made
        When.
    overview
        Totals by candidate.
    quality, quality_of
        Mean feedback: of all answers, and of each candidate's.
    comparison
        Beside a reference and other settings; ``None`` if the log cannot tell.
    no_comparison
        Why it cannot.
    over_time, latency, domains, bins, alarms, exploration, regrets
        See `mixllm_integrations.report.details`.
    brier
        Mean squared distance of feedback from what was expected; NaN without any.
    recorded
        Quality against cost on labelled answers, if there were any.
    """

    source: str
    made: datetime
    overview: Overview
    quality: Interval
    quality_of: dict[str, Interval]
    comparison: Comparison | None
    no_comparison: str
    over_time: SharesOverTime | None
    latency: tuple[Latency, ...]
    domains: tuple[DomainRow, ...]
    bins: tuple[Bin, ...]
    brier: float
    alarms: tuple[Alarm, ...]
    exploration: Exploration
    regrets: tuple[Regret, ...]
    recorded: RecordedCurve | None = None

    def to_html(self, *, live: bool = False) -> str:
        """Return one page that needs nothing else: no network, no other file.

        Parameters
        ----------
        live
            Whether the page asks its server for news now and then.
        """
        from mixllm_integrations.report.page.document import document

        return document(self, live=live)

    def to_json(self) -> dict[str, Any]:
        """Return all figures as what JSON can hold."""
        found: dict[str, Any] = plain(asdict(self))
        return found

    def _repr_html_(self) -> str:
        from mixllm_integrations.core.markup import element, written

        frame = {
            "srcdoc": self.to_html(),
            "title": "mixllm report",
            "width": "100%",
            "height": "720",
            "sandbox": "",
            "frameborder": "0",
        }
        return written(element("iframe", frame))


def make_report(
    traffic: Traffic,
    *,
    source: str = "",
    reference: str | None = None,
    recorded: RecordedCurve | None = None,
    made: datetime | None = None,
) -> Report:
    """Return all that there is to tell of a window of traffic.

    Parameters
    ----------
    traffic
        From `read_traffic`; it may be empty.
    source
        What was read, for the reader.
    reference
        The candidate that costs are compared with; ``None``: that of which most
        quality is expected.
    recorded
        Quality against cost on labelled answers.
    made
        When; ``None``: now.

    Raises
    ------
    UnknownCandidateError
        If the log does not name the reference.
    """
    comparison, why = None, ""
    try:
        comparison = compare(traffic, reference=reference)
    except UnknownCandidateError:
        if len(traffic):
            raise
        why = "there is no decision in the log"
    except ConfigurationError as error:
        why = str(error) if len(traffic) else "there is no decision in the log"
    told = np.isfinite(traffic.reward) & np.isfinite(traffic.predicted_quality)
    missed = (traffic.reward - traffic.predicted_quality)[told] ** 2
    return Report(
        source=source,
        made=made or datetime.now(UTC),
        overview=overview(traffic),
        quality=mean_interval(traffic.reward),
        quality_of={
            name: mean_interval(traffic.reward[traffic.chosen == place])
            for place, name in enumerate(traffic.names)
        },
        comparison=comparison,
        no_comparison=why,
        over_time=shares_over_time(traffic),
        latency=latencies(traffic),
        domains=domain_rows(traffic),
        bins=bins_of(traffic),
        brier=float(missed.mean()) if missed.size else math.nan,
        alarms=traffic.alarms,
        exploration=exploration(traffic),
        regrets=regrets(traffic),
        recorded=recorded,
    )


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return what JSON can hold: no NaN, no infinity, times as text.

    Parameters
    ----------
    value
        Made of dataclasses' dictionaries, lists and numbers.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
