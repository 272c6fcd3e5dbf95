"""A callback handler that keeps the books: what each routed call took."""

import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from mixllm_integrations.serving import RECORD_KEY

__all__ = ["CallReport", "MixLLMCallbackHandler", "SessionTotals", "announce_feedback"]


@dataclass(slots=True)
class CallReport:
    """What one routed call took.

    Parameters
    ----------
    decision_id, candidate
        Which decision; who answered, or tried last.
    predicted_quality, predicted_cost, willingness_to_pay
        What the decision went by; USD.
    cost
        What it really cost, in USD; ``None`` while it is under way.
    input_tokens, output_tokens
        As the candidates reported them, those of failed attempts included.
    latency_seconds
        From the start of the routed call to its end.
    time_to_first_token_seconds
        Until the first chunk; ``None`` if the answer came as a whole.
    error
        Name of the exception's type, if the call failed. ``"GeneratorExit"``
        and ``"CancelledError"``: the caller did not want the rest.
    attempts
        Earlier attempts, as in the routing record.
    feedback
        Rewards that were recorded for it while this handler was alive.
    """

    decision_id: str | None = None
    candidate: str | None = None
    predicted_quality: float | None = None
    predicted_cost: float | None = None
    willingness_to_pay: float | None = None
    cost: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    latency_seconds: float | None = None
    time_to_first_token_seconds: float | None = None
    error: str | None = None
    attempts: list[dict[str, str]] = field(default_factory=list)
    feedback: list[float] = field(default_factory=list)


@dataclass(slots=True)
class SessionTotals:
    """Sums over all routed calls that a handler heard.

    Parameters
    ----------
    calls, errors
        How many ended, and how many of these with an error.
    failed_attempts
        How many times another candidate had to take over.
    cost
        USD.
    input_tokens, output_tokens
        As reported.
    latency_seconds
        Of all calls together.
    feedback_count, feedback_sum
        How many rewards, and their sum.
    calls_by_candidate, cost_by_candidate
        The same per candidate that answered.
    """

    calls: int = 0
    errors: int = 0
    failed_attempts: int = 0
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    latency_seconds: float = 0.0
    feedback_count: int = 0
    feedback_sum: float = 0.0
    calls_by_candidate: dict[str, int] = field(default_factory=dict)
    cost_by_candidate: dict[str, float] = field(default_factory=dict)

    def add(self, report: CallReport) -> None:
        """Add one call that has ended.

        Parameters
        ----------
        report
            What it took.
        """
        self.calls += 1
        self.errors += report.error is not None
        self.failed_attempts += len(report.attempts)
        self.cost += report.cost or 0.0
        self.input_tokens += report.input_tokens
        self.output_tokens += report.output_tokens
        self.latency_seconds += report.latency_seconds or 0.0
        if report.error is None and report.candidate is not None:
            who = report.candidate
            self.calls_by_candidate[who] = self.calls_by_candidate.get(who, 0) + 1
            spent = self.cost_by_candidate.get(who, 0.0) + (report.cost or 0.0)
            self.cost_by_candidate[who] = spent


class MixLLMCallbackHandler(BaseCallbackHandler):
    """Notes cost, latency, tokens, errors and feedback of every routed call.

    Pass it in the config of a whole chain, or to the constructor of a model.
    Calls of other models in the chain are not counted. Safe in threads.

    Parameters
    ----------
    max_calls
        How many calls are kept in detail, the latest ones; the totals go on.
    clock
        Seconds that never go backwards.

    Examples
    --------
    >>> books = MixLLMCallbackHandler()
    >>> books.totals.calls, books.totals.cost
    (0, 0.0)
    """

    run_inline = True

    def __init__(
        self,
        *,
        max_calls: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._max_calls = max_calls
        self._lock = threading.Lock()
        self._open: OrderedDict[UUID, _OpenCall] = OrderedDict()
        self._root: dict[UUID, UUID] = {}
        self._ended: deque[CallReport] = deque(maxlen=max_calls)
        self._totals = SessionTotals()
        with _LIVE_LOCK:
            _LIVE.add(self)

    @property
    def calls(self) -> list[CallReport]:
        """Copies of the reports of calls that have ended, oldest first."""
        with self._lock:
            return deepcopy(list(self._ended))

    @property
    def totals(self) -> SessionTotals:
        """A copy of the sums so far."""
        with self._lock:
            return deepcopy(self._totals)

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,  # noqa: ARG002
        inputs: dict[str, Any],  # noqa: ARG002
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Open the books of a routed call."""
        record = (metadata or {}).get(RECORD_KEY)
        with self._lock:
            if self._joins(run_id, parent_run_id) or not isinstance(record, Mapping):
                return
            self._open[run_id] = _OpenCall(_report(record), self._clock())
            while len(self._open) > self._max_calls:  # streams that never ended
                self._open.popitem(last=False)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002
        messages: list[list[BaseMessage]],  # noqa: ARG002
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Remember to which routed call an LLM run belongs."""
        with self._lock:
            self._joins(run_id, parent_run_id)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Note when the first chunk came."""
        self._note_first(run_id)

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Note when the first event came."""
        self._note_first(run_id)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Add the tokens of an LLM run."""
        with self._lock:
            call = self._call_of(run_id)
            self._root.pop(run_id, None)
            if call is None:
                return
            for asked, answered in map(_tokens, response.generations):
                call.report.input_tokens += asked
                call.report.output_tokens += answered

    def on_llm_error(
        self,
        error: BaseException,  # noqa: ARG002
        *,
        run_id: UUID,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Forget an LLM run that failed; the routed call may go on."""
        with self._lock:
            self._root.pop(run_id, None)

    def on_chain_end(
        self,
        outputs: dict[str, Any],
        *,
        run_id: UUID,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Close the books of a routed call."""
        record = outputs.get(RECORD_KEY) if isinstance(outputs, Mapping) else None
        self._close(run_id, record if isinstance(record, Mapping) else {}, None)

    def on_chain_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Close the books of a routed call that failed."""
        self._close(run_id, {}, type(error).__name__)

    def on_feedback(self, decision_id: str, reward: float) -> None:
        """Note feedback on a call that this handler has heard of.

        Parameters
        ----------
        decision_id
            Which decision it speaks of.
        reward
            In [0, 1].
        """
        with self._lock:
            for report in reversed(self._ended):  # feedback is mostly recent
                if report.decision_id == decision_id:
                    report.feedback.append(reward)
                    self._totals.feedback_count += 1
                    self._totals.feedback_sum += reward
                    return

    def _joins(self, run_id: UUID, parent_run_id: UUID | None) -> bool:
        """Tell whether a run is inside a routed call; if so, remember it."""
        if parent_run_id is None:
            return False
        root = self._root.get(parent_run_id)
        if root is None and parent_run_id in self._open:
            root = parent_run_id
        if root is None:
            return False
        self._root[run_id] = root
        return True

    def _call_of(self, run_id: UUID) -> "_OpenCall | None":
        root = self._root.get(run_id)
        return None if root is None else self._open.get(root)

    def _note_first(self, run_id: UUID) -> None:
        with self._lock:
            call = self._call_of(run_id)
            if call is not None and call.report.time_to_first_token_seconds is None:
                waited = self._clock() - call.started_at
                call.report.time_to_first_token_seconds = waited

    def _close(
        self, run_id: UUID, record: Mapping[str, Any], error: str | None
    ) -> None:
        with self._lock:
            self._root.pop(run_id, None)
            call = self._open.pop(run_id, None)
            if call is None:
                return
            report = call.report
            report.latency_seconds = self._clock() - call.started_at
            report.error = error
            for name in _RECORDED:
                if name in record:
                    setattr(report, name, record[name])
            self._ended.append(report)
            self._totals.add(report)


@dataclass(slots=True)
class _OpenCall:
    report: CallReport
    started_at: float


_RECORDED = (
    "decision_id",
    "candidate",
    "predicted_quality",
    "predicted_cost",
    "willingness_to_pay",
    "cost",
    "attempts",
)


def _report(record: Mapping[str, Any]) -> CallReport:
    return CallReport(**{name: record[name] for name in _RECORDED if name in record})


def _tokens(generations: Sequence[Generation]) -> tuple[int, int]:
    first = generations[0] if generations else None
    message = first.message if isinstance(first, ChatGeneration) else None
    usage = message.usage_metadata if isinstance(message, AIMessage) else None
    if usage is None:
        return 0, 0
    return usage.get("input_tokens", 0), usage.get("output_tokens", 0)


_LIVE: "weakref.WeakSet[MixLLMCallbackHandler]" = weakref.WeakSet()
_LIVE_LOCK = threading.Lock()


def announce_feedback(decision_id: str, reward: float) -> None:
    """Tell every handler that is alive of new feedback.

    Feedback comes after the run has ended, when no callback manager is there
    to carry it.

    Parameters
    ----------
    decision_id
        Which decision it speaks of.
    reward
        In [0, 1].
    """
    with _LIVE_LOCK:
        alive = list(_LIVE)
    for handler in alive:
        handler.on_feedback(decision_id, reward)
