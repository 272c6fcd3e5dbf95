"""Who competes for the calls of one routed model: they come, go and are renamed.

Each adapter has its own kind of candidate and of model; this is what is the same.
"""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from mixllm_integrations.core.errors import (
    ConfigurationError,
    NoCandidateError,
    UnknownCandidateError,
)
from mixllm_integrations.core.router import Router
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.serving.naming import (
    Renames,
    UnknownHereError,
    gone,
    renames_of,
)

if TYPE_CHECKING:
    from mixllm_integrations.serving.rules import RoutingRule

__all__ = ["Members", "Presence", "Present", "meanings"]


class Present(NamedTuple):
    """Which candidates of one model its router has.

    Parameters
    ----------
    among
        Their names; ``None``: the router has no others.
    all_here
        Whether none is missing.
    """

    among: tuple[str, ...] | None
    all_here: bool = False


class Presence:
    """Tells which candidates of one model its router has, and remembers it.

    Parameters
    ----------
    names
        The model's candidates.
    """

    __slots__ = ("_last", "_names")

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._last: tuple[tuple[Candidate, ...], Present] = ((), Present(()))

    def of(self, router: Router) -> Present:
        """Return who may be chosen.

        Parameters
        ----------
        router
            Who decides; it may have candidates of other models, too.

        Returns
        -------
        Present
            Whom of these the router has.
        """
        known, last = router.candidates, self._last
        # Mostly the very same objects: cheaper than to compare names.
        if len(known) != len(last[0]) or not all(map(operator.is_, known, last[0])):
            self._last = last = (known, self._shared(known))
        return last[1]

    def _shared(self, known: Sequence[Candidate]) -> Present:
        shared = tuple(c.name for c in known if c.name in self._names)
        return Present(
            None if shared and len(shared) == len(known) else shared,
            all_here=len(shared) == len(self._names),
        )


def meanings(
    named: Iterable[tuple[str, str | None]],
) -> dict[str, tuple[str, ...]]:
    """Return what each name that a caller may use stands for.

    Parameters
    ----------
    named
        The candidates' names, each with what its provider calls its model;
        ``None``: nobody knows.

    Returns
    -------
    dict
        From such a name to those of candidates. A candidate's own name goes
        before what another one's model is called.

    Examples
    --------
    >>> meanings([("fast", "gpt-4o"), ("calm", "gpt-4o"), ("gpt-4o-mini", None)])
    {'gpt-4o': ('fast', 'calm'), 'fast': ('fast',), 'calm': ('calm',), \
'gpt-4o-mini': ('gpt-4o-mini',)}
    """
    named = list(named)
    meant: dict[str, tuple[str, ...]] = {}
    for name, model_name in named:
        if model_name is not None:
            meant[model_name] = (*meant.get(model_name, ()), name)
    return meant | {name: (name,) for name, _ in named}


class Members:
    """The candidates of a routed model, as both adapters have them.

    A model that inherits it has `router`, `candidates` (frozen data classes with a
    `name` and a method `known_name`), `rules` and `shadow`.
    """

    if TYPE_CHECKING:

        @property
        def router(self) -> Router: ...  # noqa: D102

        candidates: tuple[Any, ...]
        rules: tuple[RoutingRule, ...]
        shadow: str | None

        def names(self) -> tuple[str, ...]:  # noqa: D102 - as they were passed
            ...

        def _presence(self) -> Present:  # which of the candidates the router has
            ...

        def _hold(self, update: dict[str, Any]) -> None:  # what is known to be right
            ...

    @cached_property
    def _renames(self) -> Renames:
        return renames_of(self.router)

    @cached_property
    def _followed(self) -> tuple[tuple[str, str], ...]:
        """The renames that this model's own names have been through."""
        return self._renames.log

    def _follow(self) -> None:
        """Call candidates, also in rules, by the names that they were given since."""
        with self._renames.lock:
            log = self._renames.log
            pending, self.__dict__["_followed"] = log[len(self._followed) :], log
            candidates, rules, shadow = self.candidates, self.rules, self.shadow
            for old, new in pending:
                names = [candidate.known_name() for candidate in candidates]
                if old in names and new not in names:
                    candidates = tuple(
                        replace(candidate, name=new) if name == old else candidate
                        for name, candidate in zip(names, candidates, strict=True)
                    )
                    rules = tuple(rule.renamed(old, new) for rule in rules)
                    shadow = new if shadow == old else shadow
            if candidates is not self.candidates:
                self._hold({"candidates": candidates, "rules": rules, "shadow": shadow})

    def among(self) -> tuple[str, ...] | None:
        """Return who may be chosen.

        Returns
        -------
        tuple of str or None
            ``None``: every candidate of the router, as long as it has no other
            ones, which it may have been given for another model.

        Raises
        ------
        NoCandidateError
            If the router has none of this model's candidates any more.
        """
        among, all_here = self._presence()
        if all_here and not self._renames.missing:
            return among
        with self._renames.lock:  # a rename may be under way
            among, _ = self._presence()
            self._renames.look_for(self.names())
        if among == ():
            why = gone(self._in_router())
            raise NoCandidateError(dict.fromkeys(self.names(), why))
        return among

    def remove_candidate(self, name: str) -> None:
        """Let a model compete no longer; what was learned of it is kept.

        It leaves the router, so other models that share the router do not
        choose it either.

        Parameters
        ----------
        name
            The candidate's name.

        Raises
        ------
        UnknownCandidateError
            If there is none of that name.
        """
        with self._renames.lock:
            self._check_known(name)
            if name in self._in_router():
                self.router.remove_candidate(name)
            self._keep(tuple(c for c in self.candidates if c.known_name() != name))

    def _keep(self, kept: tuple[Any, ...]) -> None:
        """Go on with fewer candidates."""
        self._hold({"candidates": kept})

    def rename_candidate(self, old: str, new: str) -> None:
        """Let a model go on under another name, with all that is known of it.

        It gets that name in the router as well, in the rules that name it, in
        sessions, and in other models that share the router. Calls under way end
        as they began, and answers given under the old name take feedback.

        Parameters
        ----------
        old
            The candidate's name.
        new
            Its name from now on. If it was renamed in the router already, with
            `Router.rename_candidate`, this model follows.

        Raises
        ------
        UnknownCandidateError
            If there is none of the old name.
        ConfigurationError
            If the new one is taken, here or in the router, or is no name.
        """
        with self._renames.lock:
            self._check_known(old)
            self._check_free(new)
            self._renames.rename(old, new)
            self._follow()

    def unknown(self, name: str) -> UnknownCandidateError:
        """Return what to raise where a candidate is named that is not there.

        Parameters
        ----------
        name
            The name that was asked for.

        Returns
        -------
        UnknownCandidateError
            It tells whom this model has, and whom its router.
        """
        return UnknownHereError(name, self.names(), self._in_router())

    def _in_router(self) -> tuple[str, ...]:
        return tuple(candidate.name for candidate in self.router.candidates)

    def _check_known(self, name: str) -> None:
        if name not in self.names():
            raise self.unknown(name)

    def _check_free(self, name: str) -> None:
        if name in self.names():
            raise ConfigurationError(f"a candidate called {name!r} is there already")
