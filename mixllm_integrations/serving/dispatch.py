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
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.errors import UnknownCandidateError
from mixllm_integrations.core.types import FeedbackKind, Requirement, number_between
from mixllm_integrations.serving.call import RoutedCall
from mixllm_integrations.serving.cooldown import Cooldown
from mixllm_integrations.serving.feedback import decision_id_of
from mixllm_integrations.serving.journal import Journal
from mixllm_integrations.serving.options import (
    NO_CACHE,
    Asked,
    CacheUse,
    CallOptions,
)
from mixllm_integrations.serving.prices import CachePrice
from mixllm_integrations.serving.sessions import Sessions

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.store import EventStore

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
        Seconds that never go backwards.
    store
        Where decisions, outcomes and feedback are logged: ``None``, a URL such
        as ``"sqlite:///events.db"``, or a store. Prompts are never logged. A
        journal of another dispatcher is shared with it.

    Raises
    ------
    ConfigurationError
        If `cooldown_seconds` or `store` cannot be used.

    Attributes
    ----------
    sessions
        Who has read how much of which session.
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
        self.sessions = Sessions(clock=clock)
        self._surcharge: dict[str, float] = {}

    def begin(
        self,
        query: str,
        *,
        input_tokens: int | None = None,
        requires: Iterable[Requirement] = (),
        among: Collection[str] | None = None,
        options: CallOptions = _NO_OPTIONS,
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
        asked = Asked(query, input_tokens, tuple(requires), among)
        for name in (options.candidate, options.shadow):
            if name is not None and name not in options.barred:
                self._check_known(name, among)
        return RoutedCall(self, asked, options)

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
        for candidate in self.router.candidates:
            if candidate.name == name:
                listed = (
                    input_tokens * candidate.input_cost_per_million_tokens
                    + output_tokens * candidate.output_cost_per_million_tokens
                ) / 1e6
                if cache == NO_CACHE:
                    return listed
                saved = (cache.read or 0) * self.sessions.saving_per_token.get(
                    name, 0.0
                )
                extra = cache.written * self._surcharge.get(name, 0.0)
                return max(listed - saved + extra, 0.0)
        return 0.0

    def _check_known(self, name: str, among: Collection[str] | None) -> None:
        known = among if among is not None else self.names()
        if name not in known:
            raise UnknownCandidateError(name, known)

    def names(self) -> tuple[str, ...]:
        """Return the names of the router's candidates, in declaration order."""
        return tuple(candidate.name for candidate in self.router.candidates)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Dispatcher":
        """Return itself: copies of a model share what it learns."""
        return self
