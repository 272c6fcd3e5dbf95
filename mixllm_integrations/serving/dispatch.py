"""One routed call from its decision to its outcome, with failover.

Both adapters drive a `RoutedCall` in the same way::

    call = dispatcher.begin(query)
    try:
        while True:
            try:
                answer = ask(call.candidate)
                break
            except Exception as error:
                if call.fail(error):
                    continue
                seconds = call.pause()
                if seconds is None:
                    raise call.failure() from None
                sleep(seconds)
                if not call.resume():
                    raise call.failure() from None
        record = call.succeed(input_tokens=..., output_tokens=...)
    finally:
        call.abandon()

Everything here costs microseconds and never waits: the adapters do that, each in
its own way.
"""

import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.errors import UnknownCandidateError
from mixllm_integrations.core.types import (
    Feedback,
    FeedbackKind,
    ImplicitSignal,
    Requirement,
    number_between,
)
from mixllm_integrations.serving.call import RoutedCall
from mixllm_integrations.serving.cooldown import Cooldown
from mixllm_integrations.serving.drifts import DriftLog
from mixllm_integrations.serving.feedback import decision_id_of
from mixllm_integrations.serving.following import Follower
from mixllm_integrations.serving.journal import Journal
from mixllm_integrations.serving.live import Live
from mixllm_integrations.serving.naming import UnknownHereError, moved, renames_of
from mixllm_integrations.serving.options import (
    NO_CACHE,
    Asked,
    CacheUse,
    CallOptions,
)
from mixllm_integrations.serving.prices import CachePrice
from mixllm_integrations.serving.sessions import Sessions
from mixllm_integrations.serving.signals import LastQuestions
from mixllm_integrations.serving.steady import steady
from mixllm_integrations.serving.telling import Teller

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.store import EventStore
    from mixllm_integrations.store.live import SharedState

__all__ = ["Dispatcher"]

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
        Seconds. If it is set back, time goes on all the same.
    store
        Where decisions, outcomes, feedback and alarms of drift are logged:
        ``None``, a URL such as ``"sqlite:///events.db"``, or a store. Prompts
        are never logged. A journal of another dispatcher is shared with it.
    learn_from_store
        Whether to learn what other workers log, and earlier processes have
        logged, and to log what they need to learn from this one, if `store` is a
        `SharedStore`, as that of a URL is. Else it is only a log.
    shared_state
        Where workers meet, to know of each other's load, cooldowns, sessions and
        spending: ``None``, a URL such as ``"redis://host:6379/0"``, or a
        `SharedState`.

    Raises
    ------
    ConfigurationError
        If `cooldown_seconds`, `store` or `shared_state` cannot be used.

    Attributes
    ----------
    sessions
        Who has read how much of which session.
    last_questions
        Who answered the last question of each session; ``None`` if the router
        learns nothing from its being asked again.
    follower
        Learns from the log; ``None`` if nobody does.
    live
        Keeps this worker in touch with others; ``None`` without a shared state.
    renames
        What the router's candidates are called by now.
    """

    def __init__(
        self,
        router: "Router",
        *,
        cooldown_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        store: "EventStore | Journal | str | None" = None,
        learn_from_store: bool = True,
        shared_state: "SharedState | str | None" = None,
    ) -> None:
        self.router = router
        self.clock = clock = steady(clock)
        self.renames = renames_of(router)
        self.cooldown = Cooldown(
            number_between(cooldown_seconds, "cooldown_seconds"),
            clock=clock,
            called=self.renames.current,
        )
        self.journal = store if isinstance(store, Journal) else Journal.open(store)
        self.sessions = Sessions(clock=clock, called=self.renames.current)
        self._surcharge: dict[str, float] = {}
        wanted = router.implicit_signals
        self.last_questions = (
            LastQuestions(clock=clock) if "regenerate" in wanted else None
        )
        journal = self.journal
        self.renames.tell(self)
        self.follower = Follower.over(router, journal) if learn_from_store else None
        self._teller = Teller(router, journal, self.follower)
        self._drifts = (
            None if journal is None else DriftLog(router, journal, self.follower)
        )
        self.live = Live.over(router, shared_state)
        if self.live is not None:
            self.live.join(self, self.cooldown, self.sessions)

    def begin(
        self,
        query: str,
        *,
        input_tokens: int | None = None,
        requires: Iterable[Requirement] = (),
        among: Collection[str] | None = None,
        options: CallOptions = _NO_OPTIONS,
        form: str = "",
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
        form
            What the answer must be like, for example the name of a schema: the
            same text in another form is another question.

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
            If `among`, a forced candidate or a shadowed one is not there.
        """
        if self.live is not None:
            self.live.start()
        if self.follower is not None:
            self.follower.start()
        asked = Asked(query, input_tokens, tuple(requires), among)
        for name in (options.candidate, options.shadow):
            if name is not None and name not in options.barred:
                self._check_known(name, among)
        return RoutedCall(self, asked, options, form)

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
            If neither the router nor the log knows the decision, or not any more.

        Notes
        -----
        It may be a decision of another worker, or of an earlier process. If the
        database is away, so that it cannot be looked up, the feedback is kept and
        learned from later, should the decision be there.
        """
        told = Feedback(decision_id_of(answer), reward, kind, source)
        if self.follower is not None:
            self.follower.start()
        new = self._teller.feedback(told)
        self.look_for_drift(told.decision_id)
        return new

    def record_signal(self, answer: object, signal: ImplicitSignal) -> bool:
        """Tell the router what the traffic itself says of an answer.

        Parameters
        ----------
        answer
            The answer, its routing record, or the id of its decision.
        signal
            ``"regenerate"``, ``"tool_error"``, ``"parse_failure"`` or
            ``"truncated"``; learned from if the router was made with it among
            its `implicit_signals`.

        Returns
        -------
        bool
            False if this was said of this decision already.

        Raises
        ------
        ConfigurationError
            If no decision is found on `answer`, or the signal is unknown.
        UnknownDecisionError
            If neither the router nor the log knows the decision, or not any more.
        """
        return self._teller.signal(decision_id_of(answer), signal)

    def tell(self, decision_id: str, signal: ImplicitSignal) -> None:
        """Do what `record_signal` does, for a decision that may be forgotten.

        Parameters
        ----------
        decision_id
            Which decision.
        signal
            What was seen.
        """
        self._teller.signal_at_once(decision_id, signal)

    def look_for_drift(self, decision_id: str) -> None:
        """Log the alarms that the last outcome or feedback has raised.

        Parameters
        ----------
        decision_id
            Of which decision it was.
        """
        if self._drifts is not None:
            self._drifts.look(decision_id)

    def handed_over(self, decision_id: str) -> Callable[[], Any] | None:
        """Return what gives other workers all they need to learn from a decision.

        Parameters
        ----------
        decision_id
            Of one that was just made.

        Returns
        -------
        callable or None
            Cheap until it is called; ``None``: nobody is to learn from it.
        """
        if self.follower is None:
            return None
        return partial(self.router.hand_over, decision_id)

    def know_cache(self, name: str, price: CachePrice) -> None:
        """Note what a candidate's cache of prompts changes.

        Parameters
        ----------
        name
            The candidate.
        price
            In USD per token.
        """
        self.sessions.saving_per_token[name] = price.saving
        self._surcharge[name] = price.surcharge

    def renamed(self, old: str, new: str) -> None:
        """Keep what is known of a candidate under another name.

        Parameters
        ----------
        old, new
            Its names.
        """
        self.cooldown.renamed(old, new)
        self.sessions.renamed(old, new)
        moved(self._surcharge, old, new)

    def charge(
        self, name: str, input_tokens: int, output_tokens: int, cache: CacheUse
    ) -> float:
        """Return what tokens cost at a candidate's prices.

        Parameters
        ----------
        name
            The candidate.
        input_tokens, output_tokens
            Lengths, what was read from a cache or put into it included.
        cache
            How much of the prompt that was.

        Returns
        -------
        float
            USD; 0 for a candidate that has been removed while it answered.
        """
        known = {candidate.name: candidate for candidate in self.router.candidates}
        name = self.renames.current(name, known)
        candidate = known.get(name)
        if candidate is None:
            return 0.0
        listed = (
            input_tokens * candidate.input_cost_per_million_tokens
            + output_tokens * candidate.output_cost_per_million_tokens
        ) / 1e6
        if cache == NO_CACHE:
            return listed
        saved = (cache.read or 0) * self.sessions.saving_per_token.get(name, 0.0)
        extra = cache.written * self._surcharge.get(name, 0.0)
        return max(listed - saved + extra, 0.0)

    def _check_known(self, name: str, among: Collection[str] | None) -> None:
        known, current = self.names(), self.renames.current
        name = current(name, known)
        if among is None and name not in known:
            raise UnknownCandidateError(name, known)
        if among is not None and name not in [current(n, known) for n in among]:
            raise UnknownHereError(name, among, known, "this call may ask")

    def names(self) -> tuple[str, ...]:
        """Return the names of the router's candidates, in declaration order."""
        return tuple(candidate.name for candidate in self.router.candidates)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Dispatcher":
        """Return itself: copies of a model share what it learns."""
        return self
