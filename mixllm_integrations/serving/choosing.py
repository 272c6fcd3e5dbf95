"""Who answers next: the router's choice among those who may, and are not resting."""

import math
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.errors import (
    BudgetExceededError,
    NoCandidateError,
    UnknownCandidateError,
)
from mixllm_integrations.core.types import Decision, Outcome
from mixllm_integrations.serving.naming import gone
from mixllm_integrations.serving.options import Asked, CallOptions

if TYPE_CHECKING:
    from mixllm_integrations.serving.dispatch import Dispatcher

__all__ = ["Chooser", "imagined", "shadow_record"]

_NOBODY: Mapping[str, str] = MappingProxyType({})


class Chooser:
    """Chooses for one call, again and again if it has to.

    Parameters
    ----------
    dispatcher
        With the router, the cooldowns and the sessions.
    asked
        What is routed.
    options
        What the caller asks of the call.
    """

    __slots__ = ("_asked", "_barred", "_dispatcher", "_options", "_renames")

    def __init__(
        self, dispatcher: "Dispatcher", asked: Asked, options: CallOptions
    ) -> None:
        self._dispatcher = dispatcher
        self._renames = dispatcher.renames
        self._asked = asked
        self._options = options
        self._barred = dict(options.barred) if options.barred else {}

    def bar(self, name: str, reason: str) -> None:
        """Choose this candidate no more.

        Parameters
        ----------
        name
            The candidate.
        reason
            Why not.
        """
        self._barred[name] = reason

    def allow(self, names: Iterable[str]) -> None:
        """Let candidates be chosen again that were barred.

        Parameters
        ----------
        names
            As they were barred.
        """
        for name in names:
            self._barred.pop(name, None)

    def bar_smaller(self, name: str) -> None:
        """Choose nobody any more whose context window is no larger than this one's.

        Parameters
        ----------
        name
            A candidate for which the prompt was too long.
        """
        windows = {
            candidate.name: candidate.context_window or math.inf
            for candidate in self._dispatcher.router.candidates
        }
        too_small = windows.get(self._renames.current(name, windows), math.inf)
        if math.isinf(too_small):
            return
        for other, window in windows.items():
            if window <= too_small:
                self._barred.setdefault(
                    other, f"the prompt is too long for {name!r} already"
                )

    def unforced(self) -> Decision | None:
        """Return what the router would do, if nobody was forced on it.

        Returns
        -------
        Decision or None
            Not counted as load; ``None`` if nobody may answer.
        """
        try:
            return self._ask(self._asked.among, is_real=False)
        except NoCandidateError:
            return None

    def choose(self, prefer: str | None) -> Decision:
        """Return the next decision, and claim the candidate's place if it has rested.

        Parameters
        ----------
        prefer
            Who answers if able to and not cooling down.

        Returns
        -------
        Decision
            Those who cool down come last, the one due soonest first.

        Raises
        ------
        NoCandidateError
            If nobody may answer.
        """
        options = self._options
        forced = options.candidate if options.shadow is None else options.shadow
        among = self._asked.among if forced is None else (forced,)
        if self._renames:
            among = None if among is None else self._called(among)
            prefer = None if prefer is None else self._renames.current(prefer)
        cooldown = self._dispatcher.cooldown
        refused: set[str] = set()
        while True:
            cooling = cooldown.due()
            if refused:  # others have just begun to probe these
                cooling = {**dict.fromkeys(refused, math.inf), **cooling}
            decision = self._choose(among, prefer, cooling)
            name = decision.candidate
            if (
                options.dry_run
                or name in cooling
                or cooldown.claim(name, by=decision.id)
            ):
                return decision
            refused.add(name)
            self._dispatcher.router.record_outcome(
                decision.id, Outcome(0, 0, error="cooling down")
            )

    def _choose(
        self,
        among: Collection[str] | None,
        prefer: str | None,
        cooling: Mapping[str, float],
    ) -> Decision:
        if not cooling and prefer is None:
            return self._ask(among)
        names = tuple(among if among is not None else self._dispatcher.names())
        ready = tuple(name for name in names if name not in cooling)
        now = self._dispatcher.clock()
        resting = {
            name: f"rests for {max(cooling[name] - now, 0.0):.0f} s after a failure"
            for name in names
            if name in cooling
        }
        choices = [(among, resting)] if ready else []
        if prefer in ready:
            choices.insert(0, ((prefer,), {}))
        waiting = sorted(resting, key=cooling.__getitem__)
        choices.extend(((name,), {}) for name in waiting)
        excluded: dict[str, str] = {}
        spent: BudgetExceededError | None = None
        for choice, also_barred in choices:
            try:
                return self._ask(choice, also_barred=also_barred)
            except NoCandidateError as error:
                if isinstance(error, BudgetExceededError):
                    spent = error
                for name, reason in error.excluded.items():
                    if choice is None or name in choice:
                        excluded[name] = also_barred.get(name) or reason
        raise NoCandidateError(excluded) if spent is None else spent.among(excluded)

    def _ask(
        self,
        among: Collection[str] | None,
        *,
        also_barred: Mapping[str, str] = _NOBODY,
        is_real: bool = True,
    ) -> Decision:
        asked, options = self._asked, self._options
        sessions, session = self._dispatcher.sessions, options.session
        if session is not None and not is_real:
            session = imagined(session)
        is_shadowed = is_real and options.shadow is not None
        is_real = is_real and not options.dry_run
        barred = {**also_barred, **self._barred} if also_barred else self._barred
        while True:
            if barred and self._renames:
                barred = dict(zip(self._called(barred), barred.values(), strict=True))
            try:
                return self._dispatcher.router.route(
                    asked.query,
                    input_tokens=asked.input_tokens,
                    requires=asked.requires,
                    among=among,
                    barred=barred,
                    willingness_to_pay=options.willingness_to_pay,
                    waiting_tolerance_seconds=options.waiting_tolerance_seconds,
                    # Who is shadowed answers whatever it costs, as it always did.
                    max_cost_per_query=(
                        math.inf if is_shadowed else options.max_cost_per_query
                    ),
                    discounts=(
                        sessions.discounts(session, asked.input_tokens)
                        if session
                        else None
                    ),
                    head_start=sessions.head_start(session) if session else None,
                    charge_load=is_real,
                    remember=is_real,
                )
            except UnknownCandidateError:  # it has left since, or been renamed
                known = self._dispatcher.names()
                left = tuple(n for n in self._called(among or (), known) if n in known)
                if not left:
                    why = gone(known)
                    raise NoCandidateError(dict.fromkeys(among or (), why)) from None
                among = left

    def _called(
        self, names: Iterable[str], known: Collection[str] | None = None
    ) -> tuple[str, ...]:
        """Return what candidates are called by now."""
        known = self._dispatcher.names() if known is None else known
        return tuple(self._renames.current(name, known) for name in names)


def imagined(session: str) -> str:
    """Return the session of the choices that were only noted.

    Parameters
    ----------
    session
        In which somebody else answers.

    Returns
    -------
    str
        Another one: who answers there has not warmed a cache for this one.
    """
    return f"{session}\0shadow"


def shadow_record(decision: Decision) -> dict[str, Any]:
    """Return what is noted of a decision that nobody followed.

    Parameters
    ----------
    decision
        What the router would have done.

    Returns
    -------
    dict
        ``candidate``, ``predicted_quality`` and ``predicted_cost`` (USD).
    """
    expected = decision.prediction
    return {
        "candidate": decision.candidate,
        "predicted_quality": float(expected.quality),
        "predicted_cost": float(expected.cost),
    }
