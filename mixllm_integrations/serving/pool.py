"""The router over an adapter's candidates, and the dispatcher that goes with it.

A router may serve several models, each with candidates of its own: models add
what the router lacks, and never take away what another one may need.
"""

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    UnknownCandidateError,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving.dispatch import Dispatcher
from mixllm_integrations.serving.journal import Journal

if TYPE_CHECKING:
    from mixllm_integrations.store import EventStore
    from mixllm_integrations.store.live import SharedState

__all__ = ["check_candidates", "dispatcher_over", "enrol", "router_over"]

_log = logging.getLogger(__name__)

# A dispatcher keeps its router alive, so the id of a router under which one is
# found cannot be that of another router.
_LOCK = threading.Lock()
_ENROLLING = threading.Lock()  # two models would add the same newcomer twice
_DISPATCHERS: WeakValueDictionary[tuple[object, ...], Dispatcher] = (
    WeakValueDictionary()
)
_JOURNALS: WeakValueDictionary[tuple[int, object], Journal] = WeakValueDictionary()


def router_over(
    candidates: Sequence[Candidate],
    *,
    router: Router | None = None,
    willingness_to_pay: float | None = None,
) -> Router:
    """Return a router that has these candidates.

    Parameters
    ----------
    candidates
        What the adapter can call.
    router
        One that was fitted or loaded: candidates that it lacks are added to
        it, changed ones replaced, each with a line in the log. Others stay,
        since another model may call them: route ``among`` your own. ``None``:
        a new router, which decides from priors.
    willingness_to_pay
        USD for one whole point of quality, set on the router; ``None``: the
        router's own.

    Returns
    -------
    Router
        The given one, or the new one.

    Raises
    ------
    NoCandidateError
        If there is no candidate.
    ConfigurationError
        If two have the same name, a value is not legal, or `router` is none.
    """
    names = check_candidates(candidates)
    if router is None:
        if willingness_to_pay is None:
            return Router(candidates)
        return Router(candidates, willingness_to_pay=willingness_to_pay)
    for known in router.candidates:
        if known.name not in names:
            _log.info(
                "candidate %r was not passed to the model: not asked by it", known.name
            )
    enrol(router, candidates)
    if willingness_to_pay is not None:
        router.willingness_to_pay = willingness_to_pay
    return router


def check_candidates(candidates: Sequence[Candidate]) -> list[str]:
    """Raise if candidates cannot compete with each other.

    Parameters
    ----------
    candidates
        What the adapter can call.

    Returns
    -------
    list of str
        Their names.

    Raises
    ------
    NoCandidateError
        If there is none.
    ConfigurationError
        If two have the same name.
    """
    if not candidates:
        raise NoCandidateError
    names = [candidate.name for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"two candidates are called {twice[0]!r}; pass each its own name"
        )
    return names


def enrol(router: Router, candidates: Sequence[Candidate]) -> None:
    """Add to a router what it lacks, and replace what has changed.

    Candidates that other models are asking meanwhile stay there all the while.

    Parameters
    ----------
    router
        Who decides.
    candidates
        Whom it has to know; what was learned of them is kept.
    """
    with _ENROLLING:
        known = {candidate.name: candidate for candidate in router.candidates}
        for candidate in candidates:
            before = known.get(candidate.name)
            if before is None:
                _log.info("candidate %r is new to the router: added", candidate.name)
                router.add_candidate(candidate)
            elif before != candidate:
                _log.info("candidate %r has a new price or ability", candidate.name)
                try:
                    router.replace_candidate(candidate)
                except UnknownCandidateError:  # it was removed a moment ago
                    router.add_candidate(candidate)


def dispatcher_over(
    router: Router,
    *,
    cooldown_seconds: float = 30.0,
    store: "EventStore | str | None" = None,
    learn_from_store: bool = True,
    shared_state: "SharedState | str | None" = None,
) -> Dispatcher:
    """Return the dispatcher of a router: the same one as long as it is in use.

    So models that are rebuilt for each call, as LangChain does with those
    configured at run time, know who is cooling down and open no store anew.

    Parameters
    ----------
    router
        Who decides.
    cooldown_seconds
        How long a candidate that failed is left out.
    store
        Where events are logged.
    learn_from_store
        Whether workers learn from each other through it.
    shared_state
        Where workers meet.

    Returns
    -------
    Dispatcher
        Shared by all who ask with the same five; those on the same router and
        store share its journal.

    Raises
    ------
    ConfigurationError
        If `cooldown_seconds`, `store` or `shared_state` cannot be used.
    """
    where = store if store is None or isinstance(store, str) else id(store)
    met = shared_state if isinstance(shared_state, str | None) else id(shared_state)
    with _LOCK:
        key = id(router), where, bool(learn_from_store), met, cooldown_seconds
        found = _DISPATCHERS.get(key)
        if found is not None:
            return found
        journal = _JOURNALS.get((id(router), where))
        made = Dispatcher(
            router,
            cooldown_seconds=cooldown_seconds,
            store=store if journal is None else journal,
            learn_from_store=learn_from_store,
            shared_state=shared_state,
        )
        _DISPATCHERS[key] = made
        if made.journal is not None:
            _JOURNALS[id(router), where] = made.journal
        return made
