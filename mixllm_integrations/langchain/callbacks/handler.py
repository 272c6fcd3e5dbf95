"""A callback handler that keeps the books: what each routed call took."""

import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from mixllm_integrations.core.checks import number_between, required_name
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.forking import forkable_lock
from mixllm_integrations.langchain.callbacks.reference import Reference
from mixllm_integrations.langchain.callbacks.reports import CallReport, SessionTotals
from mixllm_integrations.langchain.calls.messages import spent_on
from mixllm_integrations.serving import RECORD_KEY

__all__ = ["CallReport", "MixLLMCallbackHandler", "SessionTotals", "announce_feedback"]


class MixLLMCallbackHandler(BaseCallbackHandler):
    """Notes cost, latency, tokens, errors and feedback of every routed call.

    Pass it in the config of a whole chain, or to the constructor of a model.
    Calls of other models in the chain are not counted. Safe in threads.

    Parameters
    ----------
    reference
        The model that savings are measured against: a candidate's name, or
        one whose list price genai-prices knows. A candidate is compared by
        what it was expected to cost on each prompt, another model by its list
        price and the tokens of the answer given. Calls for which neither is
        known are counted as `SessionTotals.unpriced`.
    max_calls
        How many calls are kept in detail, the latest ones; the totals go on.
        Of calls that have begun and not ended as many are kept; those before
        them count as abandoned.
    max_sessions
        How many sessions have totals of their own, those used last.
    clock
        Seconds that never go backwards.

    Raises
    ------
    ConfigurationError
        If `reference` is no name, or a number is not a whole one from 1 on.

    Examples
    --------
    >>> books = MixLLMCallbackHandler(reference="gpt-4o")
    >>> books.totals.calls, books.totals.cost, books.totals.savings
    (0, 0.0, None)
    """

    run_inline = True

    def __init__(
        self,
        *,
        reference: str | None = None,
        max_calls: int = 10_000,
        max_sessions: int = 1_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if reference is not None:
            required_name(reference, "reference")
        self._reference = Reference(reference)
        self._max_calls = _whole(max_calls, "max_calls")
        self._max_sessions = _whole(max_sessions, "max_sessions")
        self._clock = clock
        # Reentrant: the garbage collector may close an abandoned stream, which
        # ends its run, in a thread that is in here.
        self._lock = forkable_lock()
        self._open: OrderedDict[UUID, _OpenCall] = OrderedDict()
        self._chains: dict[UUID, _OpenCall] = {}
        self._llms: dict[UUID, _LLMRun] = {}
        self._ended: deque[CallReport] = deque()
        self._decided: dict[str, CallReport] = {}
        self._totals = SessionTotals(reference)
        self._sessions: OrderedDict[str, SessionTotals] = OrderedDict()
        with _LIVE_LOCK:
            _LIVE.add(self)

    @property
    def calls(self) -> list[CallReport]:
        """Copies of the reports of calls that have ended, oldest first."""
        with self._lock:
            ended = list(self._ended)
        return [report.copy() for report in ended]

    @property
    def totals(self) -> SessionTotals:
        """A copy of the sums over all calls so far."""
        with self._lock:
            return self._totals.copy()

    @property
    def sessions(self) -> dict[str, SessionTotals]:
        """Copies of the sums per session, the one used last at the end."""
        with self._lock:
            return {name: sums.copy() for name, sums in self._sessions.items()}

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
            around = self._chains.get(parent_run_id) if parent_run_id else None
            if around is not None:  # a step of a routed call, be it routed again
                around.chains.append(run_id)
                self._chains[run_id] = around
            elif isinstance(record, Mapping):
                call = _OpenCall(CallReport(run_id), record, self._clock())
                self._open[run_id] = self._chains[run_id] = call
                while len(self._open) > self._max_calls:
                    self._give_up(next(iter(self._open)))

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
            call = self._chains.get(parent_run_id) if parent_run_id else None
            if call is not None:
                # What an attempt that failed had said was thrown away.
                call.report.time_to_first_token_seconds = None
                call.llms.append(run_id)
                self._llms[run_id] = _LLMRun(call, self._clock())

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Note when the first chunk came."""
        self._note_first(run_id)

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Note when the first event came."""
        self._note_first(run_id)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Add the tokens of an LLM run."""
        self._add(run_id, _message(response))

    def on_llm_error(
        self,
        error: BaseException,  # noqa: ARG002
        *,
        run_id: UUID,
        response: LLMResult | None = None,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Add the tokens of an LLM run that failed; the routed call may go on."""
        self._add(run_id, _message(response))

    def on_chain_end(
        self,
        outputs: dict[str, Any],
        *,
        run_id: UUID,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Close the books of a routed call."""
        told = outputs if isinstance(outputs, Mapping) else {}
        record = told.get(RECORD_KEY)
        with self._lock:
            call = self._open.get(run_id)
            # Where LangChain merges handlers it loses their order, so this can
            # come before the end of the LLM run.
            for answering in () if call is None else call.llms[-1:]:
                self._add(answering, told.get("output"))
            self._close(run_id, record if isinstance(record, Mapping) else {}, None)

    def on_chain_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Close the books of a routed call that failed or was abandoned."""
        self._close(run_id, {}, error)

    def on_feedback(self, decision_id: str, reward: float) -> None:
        """Note feedback on one of the latest calls that this handler heard of.

        Parameters
        ----------
        decision_id
            Which decision it speaks of.
        reward
            In [0, 1].
        """
        with self._lock:
            report = self._decided.get(decision_id)
            if report is not None:
                report.feedback.append(reward)
                self._credit(report.session, reward)
                return
            for call in list(self._open.values()):  # its end is yet to be heard
                if call.record.get("decision_id") == decision_id:
                    call.rewards.append(reward)

    def _note_first(self, run_id: UUID) -> None:
        run = self._llms.get(run_id)
        if run is not None and not run.begun:
            run.begun = True
            waited = self._clock() - run.call.started_at
            run.call.report.time_to_first_token_seconds = waited

    def _add(self, run_id: UUID, message: object) -> None:
        """Add what an LLM run has reported, once."""
        with self._lock:
            run = self._llms.pop(run_id, None)
            usage = message.usage_metadata if isinstance(message, AIMessage) else None
            if run is None or usage is None:
                return
            spent = spent_on(usage, None)
            report = run.call.report
            report.input_tokens += max(spent.input_tokens, 0)
            report.output_tokens += spent.output_tokens
            report.cached = spent.cached
            if spent.output_tokens and not spent.cached:
                report.generation_seconds += self._clock() - run.started_at

    def _close(
        self,
        run_id: UUID,
        outcome: Mapping[str, Any],
        error: BaseException | None,
    ) -> None:
        with self._lock:
            call = self._open.pop(run_id, None)
            if call is None:
                self._chains.pop(run_id, None)
                return
            record = {**call.record, **outcome}
            report = call.report
            report.latency_seconds = self._clock() - call.started_at
            if error is not None:
                report.error = type(error).__name__
                report.abandoned = not isinstance(error, Exception)
            self._book(call, record)

    def _give_up(self, run_id: UUID) -> None:
        """Close the books of a call whose end is not waited for any longer."""
        call = self._open.pop(run_id)
        call.report.abandoned = True
        self._book(call, call.record)

    def _book(self, call: "_OpenCall", record: Mapping[str, Any]) -> None:
        for inner in (*call.chains, call.report.run_id):
            self._chains.pop(inner, None)  # type: ignore[arg-type]
        for inner in call.llms:
            self._llms.pop(inner, None)
        report = call.report
        report.note(record)
        sums = self._sums(report.session)
        if record.get("dry_run"):
            for each in sums:
                each.dry_runs += 1
            return
        if report.comparable:
            report.reference_cost = self._reference.cost_of(report, record)
            if report.shadow_cost is not None:
                report.shadow_cost = report.as_it_went(report.shadow_cost)
        for each in sums:
            each.add(report)
        self._keep(report)
        for reward in call.rewards:
            report.feedback.append(reward)
            self._credit(report.session, reward)

    def _keep(self, report: CallReport) -> None:
        self._ended.append(report)
        if report.decision_id is not None:
            self._decided[report.decision_id] = report
        while len(self._ended) > self._max_calls:
            oldest = self._ended.popleft()
            if oldest.decision_id is not None:
                self._decided.pop(oldest.decision_id, None)

    def _sums(self, session: str | None) -> list[SessionTotals]:
        """Return the totals that a call of a session counts in."""
        if session is None:
            return [self._totals]
        if session not in self._sessions:
            self._sessions[session] = SessionTotals(self._reference.name)
            while len(self._sessions) > self._max_sessions:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(session)
        return [self._totals, self._sessions[session]]

    def _credit(self, session: str | None, reward: float) -> None:
        self._totals.add_feedback(reward)
        sums = None if session is None else self._sessions.get(session)
        if sums is not None:
            sums.add_feedback(reward)


class _OpenCall:
    """A routed call that has not ended."""

    __slots__ = ("chains", "llms", "record", "report", "rewards", "started_at")

    def __init__(
        self, report: CallReport, record: Mapping[str, Any], started_at: float
    ) -> None:
        self.report = report
        self.record = record  # the run writes into it until it ends
        self.started_at = started_at
        self.chains: list[UUID] = []
        self.llms: list[UUID] = []
        self.rewards: list[float] = []


@dataclass(slots=True)
class _LLMRun:
    call: _OpenCall
    started_at: float
    begun: bool = False


def _message(response: LLMResult | None) -> BaseMessage | None:
    """Return what an LLM run said: on an error what it had said before."""
    said = [] if response is None else response.generations
    first = said[0][0] if said and said[0] else None
    return first.message if isinstance(first, ChatGeneration) else None


def _whole(value: object, what: str) -> int:
    number = number_between(value, what, low=1, high_is_allowed=False)
    if number != int(number):
        raise ConfigurationError(f"{what} must be a whole number, not {value!r}")
    return int(number)


_LIVE: "weakref.WeakSet[MixLLMCallbackHandler]" = weakref.WeakSet()
_LIVE_LOCK = forkable_lock()


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
