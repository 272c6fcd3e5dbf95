"""What routed calls took: one by one, and summed up."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from mixllm_integrations.langchain.callbacks.figures import figures_of, text_of

__all__ = ["CallReport", "SessionTotals"]

# What is taken from the routing record as it stands there.
_RECORDED = (
    "decision_id",
    "candidate",
    "session",
    "predicted_quality",
    "predicted_cost",
    "willingness_to_pay",
    "cost",
    "attempts",
)


@dataclass(slots=True)
class CallReport:
    """What one routed call took.

    Parameters
    ----------
    run_id
        Of the chain run around the call.
    decision_id, candidate
        Which decision; who answered, or tried last.
    session
        Whose call it was, if the caller said so.
    predicted_quality, predicted_cost, willingness_to_pay
        What the decision went by; USD.
    cost
        What it really cost, in USD; ``None`` if it is unknown: the call is
        under way, failed or was abandoned.
    input_tokens, output_tokens
        As the candidates reported them, those of failed attempts included.
    latency_seconds
        From the start of the routed call to its end.
    time_to_first_token_seconds
        Until the first chunk; ``None`` if the answer came as a whole.
    generation_seconds
        From start to end of the LLM runs that the tokens are from.
    cached
        Whether the answer came out of a cache.
    error
        Name of the exception's type, if the call failed. ``"GeneratorExit"``
        and ``"CancelledError"``: the caller did not want the rest.
    abandoned
        Whether the caller left before the end.
    attempts
        Earlier attempts, as in the routing record.
    feedback
        Rewards that were recorded for it while the handler was alive.
    reference_cost
        What the reference model would have cost, in USD; ``None`` if unknown
        or not compared: see `SessionTotals`.
    shadow_candidate, shadow_cost
        In shadow mode: who would have been chosen, and the USD that this was
        expected to cost.
    """

    run_id: UUID | None = None
    decision_id: str | None = None
    candidate: str | None = None
    session: str | None = None
    predicted_quality: float | None = None
    predicted_cost: float | None = None
    willingness_to_pay: float | None = None
    cost: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    latency_seconds: float | None = None
    time_to_first_token_seconds: float | None = None
    generation_seconds: float = 0.0
    cached: bool = False
    error: str | None = None
    abandoned: bool = False
    attempts: list[dict[str, str]] = field(default_factory=list)
    feedback: list[float] = field(default_factory=list)
    reference_cost: float | None = None
    shadow_candidate: str | None = None
    shadow_cost: float | None = None

    @property
    def answered(self) -> bool:
        """Whether the call ended with an answer."""
        return self.error is None and not self.abandoned

    @property
    def comparable(self) -> bool:
        """Whether another model's cost says something beside this one's.

        Not without an answer; nor for one out of a cache, since whoever was
        asked would have been cached.
        """
        return self.answered and not self.cached and self.cost is not None

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens per second; see `SessionTotals.tokens_per_second`."""
        return _ratio(self.output_tokens, self.generation_seconds)

    @property
    def savings(self) -> float | None:
        """USD less than the reference model; negative if it cost more."""
        if self.reference_cost is None or self.cost is None:
            return None
        return self.reference_cost - self.cost

    def as_it_went(self, expected: float) -> float:
        """Return what another candidate would have cost, as far as this call tells.

        Parameters
        ----------
        expected
            USD that were expected of the other one.

        Returns
        -------
        float
            USD, scaled by how far the real cost was from what was expected of
            the candidate that answered: a prompt that asks for a long answer
            asks everybody. Source: our choice.
        """
        if self.cost is None or not self.predicted_cost:
            return expected
        return expected * self.cost / self.predicted_cost

    def note(self, record: Mapping[str, Any]) -> None:
        """Take over what a routing record says.

        Parameters
        ----------
        record
            As it stands in the chain run's metadata, or on an answer.
        """
        for name in _RECORDED:
            if name in record:
                setattr(self, name, record[name])
        if self.session is not None:
            self.session = str(self.session)
        shadow = record.get("shadow")
        if isinstance(shadow, Mapping):
            self.shadow_candidate = shadow.get("candidate")
            expected = shadow.get("predicted_cost")
            self.shadow_cost = None if expected is None else float(expected)

    def copy(self) -> "CallReport":
        """Return a copy that shares nothing which may change."""
        other = copy(self)
        other.attempts = list(self.attempts)
        other.feedback = list(self.feedback)
        return other


@dataclass(slots=True)
class SessionTotals:
    """Sums and means over routed calls.

    Parameters
    ----------
    reference
        Name of the model whose cost the savings are measured against.
    calls, errors, abandoned
        How many ended; how many of these failed; how many the caller left
        before the end. The others were answered.
    cached
        How many were answered out of a cache.
    dry_runs
        How many were decided only; they count nowhere else.
    failed_attempts
        How many attempts failed, as the routing records tell.
    cost
        USD of all calls whose cost is known.
    input_tokens, output_tokens
        As reported, those of failed attempts and cached answers included, as
        in LangChain's own counter.
    latency_seconds
        Of the answered calls together.
    streamed, first_token_seconds
        How many answered calls gave a first chunk, and their waiting for it.
    generated_tokens, generation_seconds
        Output tokens of calls that report any and were not cached, and the
        seconds of the LLM runs that they are from.
    compared, compared_cost, reference_cost
        Answered calls that have a reference cost, what they cost, and what
        the reference model would have cost. Those out of a cache are left
        out: whoever was asked would have been cached.
    unpriced
        Answered calls, none of a cache, for which the cost of the reference
        model is unknown; they are in no savings.
    shadow_calls, shadowed_cost, shadow_cost
        Answered calls in shadow mode, what they cost, and what the router's
        choices were expected to cost.
    feedback_count, feedback_sum
        How many rewards, and their sum.
    calls_by_candidate, cost_by_candidate
        Calls and USD per candidate that answered.

    Examples
    --------
    >>> totals = SessionTotals()
    >>> totals.add(CallReport(candidate="small", cost=0.5, latency_seconds=2.0))
    >>> print(totals)
    calls       1
    candidates  small 1
    cost        0.500000 USD
    tokens      0 in, 0 out
    latency     2.000 s
    """

    reference: str | None = None
    calls: int = 0
    errors: int = 0
    abandoned: int = 0
    cached: int = 0
    dry_runs: int = 0
    failed_attempts: int = 0
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    latency_seconds: float = 0.0
    streamed: int = 0
    first_token_seconds: float = 0.0
    generated_tokens: int = 0
    generation_seconds: float = 0.0
    compared: int = 0
    compared_cost: float = 0.0
    reference_cost: float = 0.0
    unpriced: int = 0
    shadow_calls: int = 0
    shadowed_cost: float = 0.0
    shadow_cost: float = 0.0
    feedback_count: int = 0
    feedback_sum: float = 0.0
    calls_by_candidate: dict[str, int] = field(default_factory=dict)
    cost_by_candidate: dict[str, float] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """How many calls ended with an answer."""
        return self.calls - self.errors - self.abandoned

    @property
    def mean_latency_seconds(self) -> float | None:
        """Mean over the answered calls; ``None`` if there is none."""
        return _ratio(self.latency_seconds, self.answered)

    @property
    def mean_time_to_first_token_seconds(self) -> float | None:
        """Mean over the answered calls that gave a first chunk."""
        return _ratio(self.first_token_seconds, self.streamed)

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens per second of the LLM runs that they are from.

        The wait for the first token counts, so that streams, whole answers and
        those that were thought over unseen can be compared.
        """
        return _ratio(self.generated_tokens, self.generation_seconds)

    @property
    def mean_feedback(self) -> float | None:
        """Mean reward; ``None`` if there is none."""
        return _ratio(self.feedback_sum, self.feedback_count)

    @property
    def savings(self) -> float | None:
        """USD less than the reference model; ``None`` if nothing was compared."""
        return self.reference_cost - self.compared_cost if self.compared else None

    @property
    def savings_share(self) -> float | None:
        """The savings as a share of what the reference model would have cost."""
        saved = self.savings
        return None if saved is None else _ratio(saved, self.reference_cost)

    @property
    def shadow_savings(self) -> float | None:
        """USD that the router's choices would have saved in shadow mode."""
        return self.shadowed_cost - self.shadow_cost if self.shadow_calls else None

    def add(self, report: CallReport) -> None:
        """Add one call that has ended.

        Parameters
        ----------
        report
            What it took.
        """
        self.calls += 1
        self.abandoned += report.abandoned
        self.errors += report.error is not None and not report.abandoned
        self.failed_attempts += len(report.attempts)
        self.cost += report.cost or 0.0
        self.input_tokens += report.input_tokens
        self.output_tokens += report.output_tokens
        if report.generation_seconds > 0:
            self.generated_tokens += report.output_tokens
            self.generation_seconds += report.generation_seconds
        if report.answered:
            self._add_answer(report)
        if report.comparable:
            self._compare(report)

    def _add_answer(self, report: CallReport) -> None:
        self.cached += report.cached
        self.latency_seconds += report.latency_seconds or 0.0
        if report.time_to_first_token_seconds is not None:
            self.streamed += 1
            self.first_token_seconds += report.time_to_first_token_seconds
        if (who := report.candidate) is not None:
            self.calls_by_candidate[who] = self.calls_by_candidate.get(who, 0) + 1
            spent = self.cost_by_candidate.get(who, 0.0) + (report.cost or 0.0)
            self.cost_by_candidate[who] = spent

    def _compare(self, report: CallReport) -> None:
        cost = report.cost or 0.0
        if report.reference_cost is not None:
            self.compared += 1
            self.compared_cost += cost
            self.reference_cost += report.reference_cost
        elif self.reference is not None:
            self.unpriced += 1
        if report.shadow_cost is not None:
            self.shadow_calls += 1
            self.shadowed_cost += cost
            self.shadow_cost += report.shadow_cost

    def add_feedback(self, reward: float) -> None:
        """Add one reward.

        Parameters
        ----------
        reward
            In [0, 1].
        """
        self.feedback_count += 1
        self.feedback_sum += reward

    def copy(self) -> "SessionTotals":
        """Return a copy that shares nothing which may change."""
        other = copy(self)
        other.calls_by_candidate = dict(self.calls_by_candidate)
        other.cost_by_candidate = dict(self.cost_by_candidate)
        return other

    def summary(self) -> dict[str, Any]:
        """Return all figures by name, as JSON can hold them.

        Returns
        -------
        dict
            Unknown figures are ``None``.
        """
        return figures_of(self)

    def __str__(self) -> str:
        """Return one line per figure that there is something to say about."""
        return text_of(self)


def _ratio(total: float, count: float) -> float | None:
    return total / count if count else None
