"""Alarms of the router, on their way into the log of events."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from mixllm_integrations.core.drift import DriftEvent
from mixllm_integrations.core.forking import forkable_lock
from mixllm_integrations.serving.journal import Journal

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router
    from mixllm_integrations.serving.following import Follower

__all__ = ["DriftLog"]

_TOLD = ("candidate", "quantity", "change", "n_observations")


class DriftLog:
    """Logs each alarm that comes while somebody looks after every call.

    Parameters
    ----------
    router
        Whose alarms; those that it has already are old.
    journal
        Where they go.
    follower
        Knows which alarms came of what other workers have logged: those log them.
    """

    __slots__ = ("_follower", "_journal", "_lock", "_router", "_seen")

    def __init__(
        self, router: "Router", journal: Journal, follower: "Follower | None" = None
    ) -> None:
        self._router = router
        self._journal = journal
        self._follower = follower
        self._lock = forkable_lock()  # a finalizer may come in between
        self._seen = _last(router.drifts)

    def look(self, decision_id: str) -> None:
        """Log what is new.

        Parameters
        ----------
        decision_id
            Whose outcome or feedback may have raised it. One decision has one
            such event: of several alarms at once the others stand in the
            first, under ``"also"``.
        """
        if _last(self._router.drifts) is self._seen:
            return
        with self._lock:
            drifts = self._router.drifts  # somebody may have looked meanwhile
            new = _after(drifts, self._seen)
            self._seen = _last(drifts)
            if self._follower is not None:
                new = [e for e in new if not self._follower.has_raised(e)]
        if new:
            told, *others = [_payload(event) for event in new]
            if others:
                told["also"] = others
            self._journal.drift(decision_id, told)


def _last(drifts: tuple[DriftEvent, ...]) -> DriftEvent | None:
    return drifts[-1] if drifts else None


def _after(drifts: tuple[DriftEvent, ...], seen: DriftEvent | None) -> list[DriftEvent]:
    """Return the events after one of them; all, if it is not kept any more."""
    for place in range(len(drifts) - 1, -1, -1):
        if drifts[place] is seen:
            return list(drifts[place + 1 :])
    return list(drifts)


def _payload(event: DriftEvent) -> dict[str, object]:
    known = asdict(event)
    return {name: known[name] for name in _TOLD}
