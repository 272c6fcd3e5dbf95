"""The attempts of one call: who failed, what to raise, whether to ask once more.

When everybody has failed, a call may wait and ask those again who may be well
by then, until its time is up.
"""

import logging
import random
from collections.abc import Callable
from typing import NamedTuple

from mixllm_integrations.serving.errors import (
    all_failed,
    is_lasting,
    note_candidate,
)
from mixllm_integrations.serving.retry_after import retry_after_seconds

__all__ = ["Attempts", "Pause"]

_log = logging.getLogger(__name__)

# Those of OpenAI's and Anthropic's own clients: the first wait, and the longest.
_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 8.0
# Of each wait so much is left to chance, so that not all come back at once.
_JITTER = 0.5


class Pause(NamedTuple):
    """A wait before somebody is asked once more.

    Parameters
    ----------
    seconds
        How long.
    names
        Who may be asked then.
    """

    seconds: float
    names: tuple[str, ...]


class _Failure(NamedTuple):
    """How a candidate failed.

    Parameters
    ----------
    error
        What it raised.
    is_unable
        Whether it could not even be asked.
    not_before
        When it may be asked again; ``None``: never.
    """

    error: Exception
    is_unable: bool = False
    not_before: float | None = None


class Attempts:
    """What became of the attempts of one call so far.

    Parameters
    ----------
    give_up_after_seconds
        How long after the call began nobody is asked once more; 0: everybody is
        asked once.
    clock
        Seconds that never go backwards. If they do all the same, what was waited
        counts.

    Attributes
    ----------
    failovers
        How many attempts failed, those left out that could not be asked.

    Notes
    -----
    Source: our choice. The wait doubles from 0.5 to 8 seconds, of which up to
    half is left to chance. Where a provider asks for more, it is that, and as much
    chance is added.
    """

    __slots__ = (
        "_began_at",
        "_clock",
        "_failures",
        "_give_up_after",
        "_rounds",
        "_told",
        "_waited",
        "failovers",
    )

    def __init__(
        self, give_up_after_seconds: float, *, clock: Callable[[], float]
    ) -> None:
        self._give_up_after = give_up_after_seconds
        self._clock = clock
        self._began_at = clock() if give_up_after_seconds else 0.0
        self._failures: dict[str, _Failure] = {}
        self._told: list[dict[str, str]] = []
        self._rounds = 0
        self._waited = 0.0
        self.failovers = 0

    @property
    def told(self) -> list[dict[str, str]]:
        """Each with its ``decision_id``, ``candidate`` and ``error``."""
        return [dict(attempt) for attempt in self._told]

    def failed(self, decision_id: str, name: str, error: Exception) -> None:
        """Note that a candidate failed.

        Parameters
        ----------
        decision_id
            Of the decision by which it was asked.
        name
            The candidate.
        error
            What it raised.
        """
        self._tell(decision_id, name, error)
        self.failovers += 1
        not_before = None
        if self._give_up_after and not is_lasting(error):
            not_before = self._clock() + (retry_after_seconds(error) or 0.0)
        self._keep(name, _Failure(error, not_before=not_before))

    def unable(self, decision_id: str, name: str, error: Exception) -> None:
        """Note that a candidate cannot be asked; the parameters are the same."""
        self._tell(decision_id, name, error)
        self._keep(name, _Failure(error, is_unable=True))

    def forget_errors(self) -> None:
        """Drop the errors: nobody takes over now, and they hold frames alive."""
        self._failures.clear()

    def end(self) -> None:
        """Ask nobody once more, whatever time is left."""
        self._give_up_after = 0.0

    def pause(self) -> Pause | None:
        """Return how long to wait, and who may be asked then.

        Returns
        -------
        Pause or None
            ``None``: time is up, or nobody will be well before it is.
        """
        if not self._give_up_after:
            return None
        now = self._clock()
        left = self._give_up_after - max(now - self._began_at, self._waited)
        due = {
            name: failure.not_before - now
            for name, failure in self._failures.items()
            if failure.not_before is not None
        }
        soonest = min(due.values(), default=left)
        if left <= 0.0 or soonest >= left:
            return None
        growing = min(_FIRST_SECONDS * 2.0**self._rounds, _LONGEST_SECONDS)
        chance = growing * _JITTER * random.random()  # noqa: S311 - no secret
        told = soonest + chance if soonest > 0.0 else 0.0
        seconds = min(max(growing - chance, told), left)
        self._rounds += 1
        self._waited += seconds
        names = tuple(name for name, wait in due.items() if wait <= seconds)
        _log.warning("all failed; %s is asked again in %.1f s", names, seconds)
        return Pause(seconds, names)

    def failure(self) -> Exception:
        """Return what to raise when nobody is left.

        Returns
        -------
        Exception
            The candidate's own error if one was tried, and the first one's if
            none could even be asked; else an `ExceptionGroup` with the last
            error of each.
        """
        failures = [(n, failure.error) for n, failure in self._failures.items()]
        if all(failure.is_unable for failure in self._failures.values()):
            name, error = failures[0]
            note_candidate(error, name)
            return error
        return all_failed(failures)

    def _tell(self, decision_id: str, name: str, error: Exception) -> None:
        kind = type(error).__name__
        self._told.append(
            {"decision_id": decision_id, "candidate": name, "error": kind}
        )

    def _keep(self, name: str, failure: _Failure) -> None:
        """Keep a candidate's last failure, in the order of the attempts."""
        self._failures.pop(name, None)
        self._failures[name] = failure
