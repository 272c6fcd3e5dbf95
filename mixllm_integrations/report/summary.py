"""Totals of an event log by candidate."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mixllm_integrations.core.display import notebook_table
from mixllm_integrations.store import Event

__all__ = ["CandidateSummary", "Summary", "summarise"]


@dataclass(slots=True)
class CandidateSummary:
    """What came of the decisions for one candidate.

    Parameters
    ----------
    decisions, answers, errors, abandoned
        How often it was chosen, answered, failed, and was given up by the
        caller before it could answer.
    cached
        How many of the answers came from its cache.
    input_tokens, output_tokens
        Of its answers.
    cost
        Of its answers, in USD, as far as it is known.
    predicted_quality
        Sum over its decisions; `mean_predicted_quality` is the mean.
    rewards
        Feedback on its answers.
    latencies_seconds
        Of its answers.
    """

    decisions: int = 0
    answers: int = 0
    errors: int = 0
    abandoned: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    predicted_quality: float = 0.0
    rewards: list[float] = field(default_factory=list)
    latencies_seconds: list[float] = field(default_factory=list)

    @property
    def mean_predicted_quality(self) -> float | None:
        """What was expected of its answers, in [0, 1]; ``None`` without any."""
        return self.predicted_quality / self.decisions if self.decisions else None

    @property
    def mean_reward(self) -> float | None:
        """Mean feedback, in [0, 1]; ``None`` where nobody said anything."""
        return sum(self.rewards) / len(self.rewards) if self.rewards else None


@dataclass(frozen=True, slots=True)
class Summary:
    """Totals of an event log.

    Parameters
    ----------
    candidates
        By name, most decisions first.
    unmatched
        Outcomes and feedback whose decision is not in the log.
    """

    candidates: dict[str, CandidateSummary]
    unmatched: int

    def _repr_html_(self) -> str:
        caption = f"{self.decisions:,} decisions, {self.cost:.4g} USD"
        heads = ("candidate", "decisions", "expected", "feedback", "USD", "errors")
        rows = [
            (
                name,
                f"{c.decisions:,}",
                _or_dash(c.mean_predicted_quality),
                _or_dash(c.mean_reward),
                f"{c.cost:.4g}",
                f"{c.errors:,}",
            )
            for name, c in self.candidates.items()
        ]
        return notebook_table(caption, heads, rows)

    @property
    def decisions(self) -> int:
        """How many decisions there were."""
        return sum(c.decisions for c in self.candidates.values())

    @property
    def cost(self) -> float:
        """What all answers cost, in USD."""
        return sum(c.cost for c in self.candidates.values())


def summarise(events: Iterable[Event]) -> Summary:
    """Return the totals of some events.

    Parameters
    ----------
    events
        In the order of the log, for example ``store.events()``.

    Returns
    -------
    Summary
        Totals by candidate.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> said = {"candidate": "small", "predicted_quality": 0.8}
    >>> log = [Event(1, "decision", "d", datetime.now(UTC), said),
    ...        Event(2, "feedback", "d", datetime.now(UTC), {"reward": 1.0})]
    >>> summarise(log).candidates["small"].mean_reward
    1.0
    """
    found: dict[str, CandidateSummary] = {}
    chosen: dict[str, str] = {}
    unmatched = 0
    for event in events:
        if event.kind == "decision":
            name = str(event.payload["candidate"])
            chosen[event.decision_id] = name
            totals = found.setdefault(name, CandidateSummary())
            totals.decisions += 1
            totals.predicted_quality += float(event.payload["predicted_quality"])
        elif event.decision_id not in chosen:
            unmatched += 1
        elif event.kind == "outcome":
            _add_outcome(found[chosen[event.decision_id]], event)
        else:
            totals = found[chosen[event.decision_id]]
            totals.rewards.append(float(event.payload["reward"]))
    ranked = sorted(found.items(), key=lambda item: -item[1].decisions)
    return Summary(dict(ranked), unmatched)


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _add_outcome(totals: CandidateSummary, event: Event) -> None:
    error = event.payload.get("error")
    totals.cached += error == "cached"
    totals.abandoned += error == "abandoned"
    totals.answers += error in {None, "cached"}
    totals.errors += error not in {None, "cached", "abandoned"}
    if error is not None:
        return
    totals.input_tokens += int(event.payload.get("input_tokens") or 0)
    totals.output_tokens += int(event.payload.get("output_tokens") or 0)
    totals.cost += float(event.payload.get("cost") or 0.0)
    if (latency := event.payload.get("latency_seconds")) is not None:
        totals.latencies_seconds.append(float(latency))
