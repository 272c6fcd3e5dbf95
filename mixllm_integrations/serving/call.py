"""One routed call under way: decision, attempts, outcome."""

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.errors import NoCandidateError, UnknownDecisionError
from mixllm_integrations.core.types import Decision, ImplicitSignal, Outcome
from mixllm_integrations.serving.attempts import Attempts, Pause
from mixllm_integrations.serving.choosing import Chooser, imagined, shadow_record
from mixllm_integrations.serving.errors import (
    is_callers_mistake,
    is_context_overflow,
    is_lasting,
    is_rate_limit,
    is_unable,
)
from mixllm_integrations.serving.options import (
    NO_CACHE,
    Asked,
    CacheUse,
    CallOptions,
)
from mixllm_integrations.serving.retry_after import retry_after_seconds
from mixllm_integrations.serving.signals import asked_again

if TYPE_CHECKING:
    from mixllm_integrations.serving.dispatch import Dispatcher

__all__ = ["RoutedCall"]

_log = logging.getLogger(__name__)


class RoutedCall:
    """One call under way; made by `Dispatcher.begin`.

    Attributes
    ----------
    decision
        The decision in force; a new one after each failover.
    shadowed
        What the router would have done, if another one answers whatever it
        says.
    """

    __slots__ = (
        "_attempts",
        "_chooser",
        "_dispatcher",
        "_first_chunk_at",
        "_open",
        "_options",
        "_pause",
        "_question",
        "_started_at",
        "decision",
        "shadowed",
    )

    decision: Decision
    _first_chunk_at: float | None
    _started_at: float

    def __init__(
        self,
        dispatcher: "Dispatcher",
        asked: Asked,
        options: CallOptions,
        form: str = "",
    ) -> None:
        self._dispatcher = dispatcher
        self._chooser = Chooser(dispatcher, asked, options)
        self._options = options
        self._attempts = Attempts(options.give_up_after_seconds, clock=dispatcher.clock)
        self._pause: Pause | None = None
        self._open = False
        self.shadowed: Decision | None = None
        if options.shadow is not None:
            self.shadowed = self._chooser.unforced()
        self._question = asked_again(dispatcher, asked, options, form)
        self._decide(options.prefer)

    @property
    def is_dry(self) -> bool:
        """Whether nobody is to be asked."""
        return self._options.dry_run

    @property
    def candidate(self) -> str:
        """Name of the candidate that is to answer now."""
        return self.decision.candidate

    @property
    def attempts(self) -> list[dict[str, str]]:
        """Earlier attempts: their ``decision_id``, ``candidate`` and ``error``."""
        return self._attempts.told

    def first_chunk(self) -> None:
        """Note that the answer has begun to arrive: the candidate is well again.

        Only the first call counts.
        """
        if self._first_chunk_at is None:
            self._first_chunk_at = self._dispatcher.clock()
            self._dispatcher.cooldown.reopen(
                self.candidate, began_at=self._started_at, by=self.decision.id
            )
            self._attempts.forget_errors()

    def succeed(
        self,
        *,
        input_tokens: int,
        output_tokens: int,
        cost: float | None = None,
        cached: bool = False,
        cache: CacheUse = NO_CACHE,
        signals: Collection[ImplicitSignal] = (),
    ) -> dict[str, Any]:
        """Record a whole answer.

        Parameters
        ----------
        input_tokens, output_tokens
            Lengths as the candidate reported them.
        cost
            USD; ``None``: from the tokens and the candidate's prices.
        cached
            Whether the answer came out of a cache: it cost nothing and teaches
            nothing about latency, length or cost.
        cache
            What passed through the provider's own cache of prompts.
        signals
            What is wrong with it on the face of it: ``"truncated"``,
            ``"parse_failure"``.

        Returns
        -------
        dict
            The routing record that goes with the answer: ``decision_id``,
            ``candidate``, ``predicted_quality``, ``predicted_cost``, ``cost``
            (USD), ``willingness_to_pay`` and ``attempts``; where they were asked
            for, also ``session``, ``shadow`` and ``dry_run``.
        """
        decision = self.decision
        if cached or self.is_dry:
            cost = 0.0
        elif cost is None:
            cost = self._dispatcher.charge(
                decision.candidate, input_tokens, output_tokens, cache
            )
        self._attempts.forget_errors()
        if self._open:
            self._open = False
            cooldown, name = self._dispatcher.cooldown, decision.candidate
            for signal in signals:  # first: of what was cut short no length is learned
                self._dispatcher.tell(decision.id, signal)
            if cached:  # which says nothing of the candidate's health
                cooldown.abandon(name, by=decision.id)
                self._release("cached")
            else:
                cooldown.forgive(name, began_at=self._started_at, by=decision.id)
                self._report(input_tokens, output_tokens, cost)
                self._note_session(input_tokens + output_tokens, cache)
            if "parse_failure" not in signals:  # then a program asks again, nobody else
                self._note_question()
        return self.record(cost=cost)

    def record(self, *, cost: float | None = None) -> dict[str, Any]:
        """Return the routing record of the decision in force.

        Parameters
        ----------
        cost
            USD; ``None`` while the answer is still arriving.

        Returns
        -------
        dict
            What `succeed` returns, so that chunks can carry it before the end.
        """
        decision, options = self.decision, self._options
        expected = decision.prediction
        record: dict[str, Any] = {
            "decision_id": decision.id,
            "candidate": decision.candidate,
            "predicted_quality": float(expected.quality),
            "predicted_cost": float(expected.cost),
            "cost": cost,
            "willingness_to_pay": float(decision.willingness_to_pay),
            "attempts": self.attempts,
        }
        if options.session is not None:
            record["session"] = options.session
        if self.shadowed is not None:
            record["shadow"] = shadow_record(self.shadowed)
        if options.dry_run:
            record["dry_run"] = True
        return record

    def fail(self, error: Exception) -> bool:
        """Record that the candidate failed, and route again among the rest.

        Parameters
        ----------
        error
            What it raised.

        Returns
        -------
        bool
            True if another candidate is to answer: see `candidate`. False if
            none is left, no more failover is allowed, or the mistake is the
            caller's own.
        """
        if is_context_overflow(error):  # a larger window may take the prompt
            self._chooser.bar_smaller(self.candidate)
            return self.decline(error)
        if is_unable(error):
            return self.decline(error)
        self._attempts.failed(self.decision.id, self.candidate, error)
        self.break_off(error)
        limit = self._options.max_failovers
        spent = limit is not None and self._attempts.failovers > limit
        if spent or is_callers_mistake(error):
            self._attempts.end()
            return False
        self._chooser.bar(self.candidate, f"it failed with {type(error).__name__}")
        return self._hand_over("failed with", type(error).__name__)

    def decline(self, error: Exception) -> bool:
        """Record that the candidate cannot be asked, and route among the rest.

        For one that refuses the tools or the schema of this call before anything
        is sent: it does not cool down, and it counts as no failover.

        Parameters
        ----------
        error
            Why it cannot.

        Returns
        -------
        bool
            Whether another candidate is to answer: see `candidate`.
        """
        self._attempts.unable(self.decision.id, self.candidate, error)
        if self._open:
            self._open = False
            self._release(type(error).__name__)
            self._dispatcher.cooldown.abandon(self.candidate, by=self.decision.id)
        self._chooser.bar(self.candidate, f"it cannot be asked: {type(error).__name__}")
        return self._hand_over("cannot be asked this:", type(error).__name__)

    def _hand_over(self, why: str, name: str) -> bool:
        failed = self.candidate
        try:
            self._decide(None)
        except NoCandidateError:
            return False
        _log.warning(
            "candidate %r %s %s; %r answers instead",
            failed,
            why,
            name,
            self.candidate,
        )
        return True

    def break_off(self, error: Exception) -> None:
        """Record that the candidate failed, and leave it at that.

        For an answer of which a part has been handed out already: another
        candidate would begin anew.

        Parameters
        ----------
        error
            What it raised.
        """
        if self._open:
            self._open = False
            name = type(error).__name__
            said = self._first_chunk_at is not None
            self._release(f"broken off by {name}" if said else name)
            cooldown = self._dispatcher.cooldown
            if is_callers_mistake(error) or is_unable(error):
                cooldown.abandon(self.candidate, by=self.decision.id)
            else:
                cooldown.start(
                    self.candidate,
                    retry_after_seconds=retry_after_seconds(error),
                    began_at=self._started_at,
                    by=self.decision.id,
                    is_brief=is_rate_limit(error) and not is_lasting(error),
                )

    def pause(self) -> float | None:
        """Return how long to wait before somebody is asked once more.

        For when `fail` returned False; `resume` comes after the wait.

        Returns
        -------
        float or None
            Seconds; ``None``: give up, and raise `failure`.
        """
        self._pause = self._attempts.pause()
        return None if self._pause is None else self._pause.seconds

    def resume(self) -> bool:
        """Route again after a pause, among those who may be well by now.

        Returns
        -------
        bool
            Whether a candidate is to answer: see `candidate`.
        """
        if self._pause is None:
            return False
        self._chooser.allow(self._pause.names)
        try:
            self._decide(self._options.prefer)
        except NoCandidateError:
            return False
        return True

    def failure(self) -> Exception:
        """Return what to raise after `fail` returned False.

        Returns
        -------
        Exception
            The candidate's own error if one was tried, and the first one's if
            none could even be asked; else an `ExceptionGroup` that names each.
        """
        return self._attempts.failure()

    def abandon(self) -> None:
        """Release the load if nothing else did; for ``finally``."""
        if self._open:
            self._open = False
            self._release("abandoned")
            self._dispatcher.cooldown.abandon(self.candidate, by=self.decision.id)

    def _decide(self, prefer: str | None) -> None:
        self.decision = self._chooser.choose(prefer)
        self._first_chunk_at = None
        self._open = not self._options.dry_run
        journal = self._dispatcher.journal
        if journal is not None and self._open:
            shadow = None if self.shadowed is None else shadow_record(self.shadowed)
            handed_over = self._dispatcher.handed_over(self.decision.id)
            journal.decision(self.decision, shadow=shadow, handed_over=handed_over)
        self._started_at = self._dispatcher.clock()

    def _report(self, input_tokens: int, output_tokens: int, cost: float) -> None:
        first = self._first_chunk_at
        self._record(
            Outcome(
                input_tokens,
                output_tokens,
                cost=cost,
                latency_seconds=self._dispatcher.clock() - self._started_at,
                time_to_first_token_seconds=(
                    None if first is None else first - self._started_at
                ),
            )
        )

    def _note_session(self, tokens: int, cache: CacheUse) -> None:
        session, sessions = self._options.session, self._dispatcher.sessions
        if session is not None:
            sessions.note(session, self.candidate, tokens, cached=cache.read)
            if self.shadowed is not None:
                sessions.note(imagined(session), self.shadowed.candidate, tokens)

    def _note_question(self) -> None:
        last, session = self._dispatcher.last_questions, self._options.session
        if last is not None and session is not None:
            last.answered(session, self._question, self.decision.id)

    def _release(self, why: str) -> None:
        self._record(Outcome(0, 0, error=why))

    def _record(self, outcome: Outcome) -> None:
        try:
            self._dispatcher.router.record_outcome(self.decision.id, outcome)
        except UnknownDecisionError:
            _log.debug("decision %s is not pending any more", self.decision.id)
        journal = self._dispatcher.journal
        if journal is not None:
            journal.outcome(self.decision.id, outcome)
            self._dispatcher.look_for_drift(self.decision.id)
