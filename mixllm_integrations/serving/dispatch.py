"""One routed call from its decision to its outcome, with failover.

Both adapters drive a `RoutedCall` in the same way::

    call = dispatcher.begin(query)
    try:
        while True:
            try:
                answer = ask(call.candidate)
                break
            except Exception as error:
                if not call.fail(error):
                    raise call.failure() from None
        record = call.succeed(input_tokens=..., output_tokens=...)
    finally:
        call.abandon()

Everything here costs microseconds and never waits, so coroutines call it
directly.
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.errors import UnknownCandidateError
from mixllm_integrations.core.types import FeedbackKind, Requirement, number_between
from mixllm_integrations.serving.call import RoutedCall
from mixllm_integrations.serving.cooldown import Cooldown
from mixllm_integrations.serving.feedback import decision_id_of
from mixllm_integrations.serving.journal import Journal

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.store import EventStore

__all__ = ["CallOptions", "Dispatcher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What a caller asks of one call.

    Parameters
    ----------
    candidate
        This candidate answers and no other, whatever the scores say.
    prefer
        This candidate answers if it is able to and is not cooling down, for
        example because it began a loop of tool calls; the others are there if
        it fails.
    max_failovers
        How often another candidate may take over; ``None``: until each has
        been tried.
    """

    candidate: str | None = None
    prefer: str | None = None
    max_failovers: int | None = None


_NO_OPTIONS = CallOptions()


class Dispatcher:
    """Routes calls, keeps failed candidates out for a while, logs events.

    Parameters
    ----------
    router
        Who decides.
    cooldown_seconds
        How long a candidate that failed is left out. Softly: if all are
        cooling down, the one due soonest is tried.
    clock
        Seconds that never go backwards.
    store
        Where decisions, outcomes and feedback are logged: ``None``, a URL such
        as ``"sqlite:///events.db"``, or a store. Prompts are never logged. A
        journal of another dispatcher is shared with it.

    Raises
    ------
    ConfigurationError
        If `cooldown_seconds` or `store` cannot be used.
    """

    def __init__(
        self,
        router: "Router",
        *,
        cooldown_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        store: "EventStore | Journal | str | None" = None,
    ) -> None:
        self.router = router
        self.clock = clock
        self.cooldown = Cooldown(
            number_between(cooldown_seconds, "cooldown_seconds"), clock=clock
        )
        self.journal = store if isinstance(store, Journal) else Journal.open(store)

    def begin(
        self,
        query: str,
        *,
        input_tokens: int | None = None,
        requires: Iterable[Requirement] = (),
        among: Collection[str] | None = None,
        options: CallOptions = _NO_OPTIONS,
        willingness_to_pay: float | None = None,
    ) -> RoutedCall:
        """Route a query and return the call that follows from it.

        Parameters
        ----------
        query
            The text that is routed.
        input_tokens
            Length of the whole prompt; ``None``: that of `query`.
        requires
            What the candidate must be capable of.
        among
            Names of the candidates that may answer; ``None``: all.
        options
            What the caller asks of this call.
        willingness_to_pay
            USD for one whole point of quality, for this call alone; ``None``:
            the router's own.

        Returns
        -------
        RoutedCall
            The call; its load is counted until it succeeds, fails or is
            abandoned.

        Raises
        ------
        NoCandidateError
            If hard limits exclude every candidate.
        UnknownCandidateError
            If `among` or a forced candidate names one that the router lacks.
        """
        if options.candidate is not None:
            among = self._only(options.candidate, among)
        return RoutedCall(
            self,
            query,
            input_tokens,
            tuple(requires),
            among,
            options.prefer,
            options.max_failovers,
            willingness_to_pay,
        )

    def record_feedback(
        self,
        answer: object,
        reward: float,
        *,
        kind: FeedbackKind = "refined",
        source: str | None = None,
    ) -> bool:
        """Tell the router how good an answer was.

        Parameters
        ----------
        answer
            The answer, its routing record, or the id of its decision.
        reward
            How good it was, in [0, 1].
        kind
            ``"refined"``: a measured quality. ``"binary"``: satisfied or not.
        source
            Who says so, for example ``"thumbs"``.

        Returns
        -------
        bool
            False if this decision already had its feedback.

        Raises
        ------
        ConfigurationError
            If no decision is found on `answer`, or the reward is not legal.
        UnknownDecisionError
            If the router does not know the decision, or not any more.
        """
        decision_id = decision_id_of(answer)
        new = self.router.record_feedback(decision_id, reward, kind=kind, source=source)
        if new and self.journal is not None:
            self.journal.feedback(decision_id, float(reward), kind, source)
        return new

    def _only(self, name: str, among: Collection[str] | None) -> tuple[str, ...]:
        known = among if among is not None else self.names()
        if name not in known:
            raise UnknownCandidateError(name, known)
        return (name,)

    def names(self) -> tuple[str, ...]:
        """Return the names of the router's candidates, in declaration order."""
        return tuple(candidate.name for candidate in self.router.candidates)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Dispatcher":
        """Return itself: copies of a model share what it learns."""
        return self
