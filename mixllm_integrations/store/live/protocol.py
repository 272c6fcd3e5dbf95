"""What a place has to do in which workers meet."""

from typing import Protocol, runtime_checkable

from mixllm_integrations.core.errors import MixLLMError
from mixllm_integrations.store.live.notes import Heard, Lease, LeaseRequest, Told

__all__ = ["SharedState", "SharedStateError"]

# All our choice. Of a worker that tells nothing for so long the load is gone.
LOAD_SECONDS = 2.0
# So long a session's notes are of use: providers keep prompts no longer.
SESSION_SECONDS = 300.0
SESSIONS_KEPT = 10_000
SESSIONS_AT_ONCE = 1_000
# A late word must find out that somebody was well again in the meantime.
WELL_SECONDS = 3_600.0
# What a worker has leased and not spent goes back so long after its last word.
LEASE_SECONDS = 10.0
# This part of the money is leased to all alike, the rest by what they spend.
EVEN_PART = 0.25
# This part is leased to nobody, so that a worker that has just begun finds some.
SPARE_PART = 0.05
# Workers that have been away for so long are counted together.
LONG_AGO_SECONDS = 3_600.0


class SharedStateError(MixLLMError):
    """The shared state cannot be reached, or does not do what is asked."""


@runtime_checkable
class SharedState(Protocol):
    """A place where workers meet; any thread may call it, and it may wait.

    What holds of every implementation:

    1. The load of a worker that tells nothing for 2 s is not counted.
    2. Of a candidate's rest the later word holds, by when the change was made and
       not by when it was told: a word that is older than what is known changes
       nothing, unless its worker knew that and changed it (`RestNote.base`). A
       recovery ends all rests that were set before it. Of two
       rests, set by workers that did not know of each other, the longer one holds.
       A probe counts as long as its worker is alive.
    3. At most 10 000 notes on sessions are kept, for 300 s or so after the last.
    4. What workers may spend of a budget (`Lease.limit`), and what those have spent
       that are not alive, is together at most the budget. Of a worker that says
       nothing for 10 s, that is what it told last; see `LeaseRequest`.
    5. Its own time only, which may stand or jump, decides what is over.
    """

    def exchange(self, told: Told) -> Heard:
        """Tell what a worker has to tell, and hear the others, in one step.

        Parameters
        ----------
        told
            What is told.

        Returns
        -------
        Heard
            What is heard.

        Raises
        ------
        SharedStateError
            If it cannot be reached; nobody knows then whether it was told.
        """
        ...

    def lease(self, request: LeaseRequest) -> Lease:
        """Lease a part of a budget.

        Parameters
        ----------
        request
            How the worker's money stands.

        Returns
        -------
        Lease
            Valid for less than 10 s.

        Raises
        ------
        SharedStateError
            If it cannot be reached; the worker then goes on with what it has.
        """
        ...

    def begin_anew(self) -> None:
        """Give up connections that belong to a parent process, without a word."""
        ...

    def close(self) -> None:
        """Give up all connections; closing twice is harmless."""
        ...
