"""What the candidates of a router are called, for all who know them by name.

A candidate may be given another name while calls to it are under way, models that
share the router have a seat for it, and it is cooling down: each of them knows it
by the old name, and learns here what it is called by now.
"""

import logging
from collections.abc import Collection, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakSet, WeakValueDictionary

from mixllm_integrations.core.checks import required_name
from mixllm_integrations.core.errors import UnknownCandidateError
from mixllm_integrations.core.forking import forkable_lock

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router

__all__ = ["Keeper", "Renames", "UnknownHereError", "gone", "moved", "renames_of"]

_Kept = TypeVar("_Kept")

_log = logging.getLogger(__name__)


class UnknownHereError(UnknownCandidateError):
    """A candidate is named that one of the models on a router does not have.

    Parameters
    ----------
    name
        The name that was asked for.
    known
        The names that may be asked for here.
    in_router
        The names that the router has.
    whose
        What the message calls those who are `known`.
    """

    def __init__(
        self,
        name: str,
        known: Iterable[str],
        in_router: Iterable[str],
        whose: str = "this model has",
    ) -> None:
        super().__init__(name, known)
        self.in_router = tuple(in_router)
        self.whose = whose
        here, there = _listed(self.known), _listed(self.in_router)
        told = f"unknown candidate {name!r}; {whose}: {here}; the router has: {there}"
        self.args = (told,)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as what it was made of, not as its message."""
        made_of = (self.name, self.known, self.in_router, self.whose)
        return type(self), made_of, self.__dict__


def gone(in_router: Iterable[str]) -> str:
    """Return why a candidate is not asked that the router does not have any more.

    Parameters
    ----------
    in_router
        The names that the router has.

    Returns
    -------
    str
        The reason.

    Examples
    --------
    >>> gone(["large-2026"])
    "it was removed from the router, or renamed there; the router has: 'large-2026'"
    """
    return (
        "it was removed from the router, or renamed there; the router has: "
        f"{_listed(in_router)}"
    )


class Keeper(Protocol):
    """Who keeps something under candidates' names."""

    def renamed(self, old: str, new: str) -> None:
        """Keep it under the new name; what was there is forgotten.

        Parameters
        ----------
        old, new
            Names of one candidate.
        """


class Renames:
    """Gives candidates of one router other names, and remembers the old ones.

    Safe in threads; made by `renames_of`. True as soon as there was a rename.

    Parameters
    ----------
    router
        Whose candidates.

    Attributes
    ----------
    lock
        Held during a rename: who holds it sees the router, its keepers and
        `log` in agreement.
    log
        Every rename, old name and new one, the latest last; another object
        after each.
    missing
        Who was missed already: see `look_for`.
    """

    __slots__ = (
        "__weakref__",
        "_keepers",
        "_keepers_lock",
        "_now",
        "_router",
        "lock",
        "log",
        "missing",
    )

    def __init__(self, router: "Router") -> None:
        self._router = router
        self._now: dict[str, str] = {}  # replaced, never changed
        self._keepers: WeakSet[Keeper] = WeakSet()
        self._keepers_lock = forkable_lock()
        self.lock = forkable_lock()
        self.log: tuple[tuple[str, str], ...] = ()
        self.missing: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self._now)

    def tell(self, keeper: Keeper) -> None:
        """Tell somebody of every rename from now on, for as long as it is there.

        Parameters
        ----------
        keeper
            Whom; hashable.
        """
        with self._keepers_lock:
            self._keepers.add(keeper)

    def current(self, name: str, known: Collection[str] | None = None) -> str:
        """Return what a candidate is called by now.

        Parameters
        ----------
        name
            What it was called when it was chosen.
        known
            Names that the router has, read a moment ago; ``None``: those of now.

        Returns
        -------
        str
            The name among these to which renames lead, `name` itself if it is
            one of them, or if they lead to none.
        """
        if name not in self._now:
            return name
        if known is None:
            known = self._in_router()
        now, called = self._now, name  # read last: it leads to all that `known` has
        for _ in range(len(now) + 1):  # names may have gone round in a circle
            if called in known:
                return called
            called = now.get(called, called)
        return name

    def rename(self, old: str, new: str) -> None:
        """Let a candidate go on under another name, here and in the router.

        Parameters
        ----------
        old
            Its name.
        new
            Its name from now on. If the router has one of this name and none of
            the old one, somebody has renamed it there already.

        Raises
        ------
        UnknownCandidateError
            If the router has neither.
        ConfigurationError
            If the router has both, or the new one is no name.
        """
        required_name(new, "a candidate's name")
        with self.lock:
            known, before = self._in_router(), self._now
            # Said before it is done: a name that the router has stands for itself.
            self._now = {**before, old: new}
            try:
                if old in known or new not in known:
                    self._router.rename_candidate(old, new)
            except BaseException:
                self._now = before
                raise
            with self._keepers_lock:
                keepers = list(self._keepers)
            for keeper in keepers:
                keeper.renamed(old, new)
            self.missing -= {old}
            self.log = (*self.log, (old, new))
        _log.info("candidate %r is called %r from now on", old, new)

    def taken(self, names: Iterable[str]) -> None:
        """Let names stand for newcomers, whoever was called so before.

        Parameters
        ----------
        names
            Whom a model is about to have; those that the router has are no
            newcomers.
        """
        with self.lock:
            known = self._in_router()
            for name in names:
                if name in self._now and name not in known:
                    leads_to = self._now[name]
                    self._now = {
                        former: leads_to if later == name else later
                        for former, later in self._now.items()
                        if former != name
                    }

    def look_for(self, names: Collection[str]) -> None:
        """Log, once, whom the router does not have any more.

        Parameters
        ----------
        names
            Candidates of one model.
        """
        with self.lock:
            known, before = self._in_router(), self.missing
            left = [name for name in names if name not in known]
            self.missing = before.difference(known).union(left)
        for name in left:
            if name not in before:
                _log.warning(
                    "candidate %r of this model is not asked any more: %s. If it was "
                    "renamed, tell the model too: rename_candidate(%r, new_name)",
                    name,
                    gone(known),
                    name,
                )

    def _in_router(self) -> tuple[str, ...]:
        return tuple(candidate.name for candidate in self._router.candidates)


# It keeps its router alive, so the id of a router under which one is found cannot
# be that of another router.
_KNOWN: WeakValueDictionary[int, Renames] = WeakValueDictionary()
_LOCK = forkable_lock()


def renames_of(router: "Router") -> Renames:
    """Return the names of a router's candidates.

    Parameters
    ----------
    router
        Which router.

    Returns
    -------
    Renames
        The same object for as long as somebody holds it.
    """
    with _LOCK:
        found = _KNOWN.get(id(router))
        if found is None:
            found = _KNOWN[id(router)] = Renames(router)
        return found


def moved(kept: MutableMapping[str, _Kept], old: str, new: str) -> None:
    """Keep under a candidate's new name what is kept under its old one.

    Parameters
    ----------
    kept
        By candidate; what it has of the new name already is forgotten.
    old, new
        Names of one candidate.

    Examples
    --------
    >>> prices = {"a": 1.0, "b": 2.0}
    >>> moved(prices, "a", "b")
    >>> prices
    {'b': 1.0}
    """
    kept.pop(new, None)
    if old in kept:
        kept[new] = kept.pop(old)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
