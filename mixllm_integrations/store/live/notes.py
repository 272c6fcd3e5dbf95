"""What workers tell each other, and what they hear.

All times are durations in seconds, so no worker needs the clock of another.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = [
    "Heard",
    "HeardRest",
    "Lease",
    "LeaseRequest",
    "Load",
    "RestNote",
    "SessionNote",
    "Told",
]


class Load(NamedTuple):
    """What a candidate has under way.

    Parameters
    ----------
    calls
        How many.
    tokens
        Predicted output tokens of all of them.
    """

    calls: int
    tokens: float


class RestNote(NamedTuple):
    """How a candidate stands at a worker: what has changed of its cooldown.

    Parameters
    ----------
    candidate
        Its name.
    base
        The version that the worker knew when it changed it; 0: none.
    age
        How long ago that was.
    since
        How long ago the rest was set.
    remaining
        How long it goes on; negative: it is over.
    seconds
        How long it is for its failures in a row.
    told
        Whether the provider said how long.
    reopened
        Whether a first word has come since.
    well
        Whether it has answered to the end: it does not rest, and no failure is
        remembered.
    probing
        Whether a call of this worker asks whether it is well again.
    keep
        How long after its end the rest is remembered.
    """

    candidate: str
    base: int
    age: float
    since: float
    remaining: float
    seconds: float
    told: bool
    reopened: bool
    well: bool
    probing: bool
    keep: float


class HeardRest(NamedTuple):
    """How a candidate stands, by what was told last.

    Parameters
    ----------
    candidate
        Its name.
    version
        Grows with each change.
    since, remaining, seconds, told, reopened, well
        As in `RestNote`.
    probed
        Whether a worker that is alive, and not the one that hears it, asks whether
        it is well again.
    """

    candidate: str
    version: int
    since: float
    remaining: float
    seconds: float
    told: bool
    reopened: bool
    well: bool
    probed: bool


class SessionNote(NamedTuple):
    """Who has answered in a session.

    Parameters
    ----------
    session
        A name for it, which need not be the user's.
    candidate
        Who answered.
    tokens
        Length of the prompt and of the answer.
    age
        How long ago.
    """

    session: str
    candidate: str
    tokens: int
    age: float


class Told(NamedTuple):
    """What a worker tells, all at once.

    Parameters
    ----------
    worker
        Its id, which no other worker has.
    number
        Grows with each message of this worker; a message that arrives after a
        later one is ignored.
    loads
        All that it has under way, by candidate.
    rests, sessions
        What has changed since the last message that arrived.
    cursor
        Up to where it has heard of sessions; empty: of none.
    """

    worker: str
    number: int
    loads: Mapping[str, Load]
    rests: Sequence[RestNote] = ()
    sessions: Sequence[SessionNote] = ()
    cursor: str = ""


class Heard(NamedTuple):
    """What a worker hears.

    Parameters
    ----------
    epoch
        Another one as soon as what was told before is lost.
    loads
        What all other workers have under way, by candidate.
    versions
        Of each rest that was told, the version that it has now; 0 where somebody
        else's word holds, in all or in part: see `rests`.
    rests
        How candidates stand.
    sessions
        What other workers told of sessions, the oldest first.
    cursor
        Up to where that is.
    is_all
        Whether nothing more is there to be heard at once.
    """

    epoch: str
    loads: Mapping[str, Load]
    versions: Sequence[int]
    rests: Sequence[HeardRest]
    sessions: Sequence[SessionNote]
    cursor: str
    is_all: bool = True


class LeaseRequest(NamedTuple):
    """How the money of a worker stands, and that it wants some.

    Parameters
    ----------
    worker, number
        As in `Told`.
    budget
        USD per period, for all workers.
    period_seconds
        Length of a period; infinity: there is one.
    period
        In which one the worker is; -1: in none.
    spent, reserved, calls
        What it has spent, what its calls under way have reserved, and how many
        there were, in that period.
    limit
        What its calls may spend and reserve in that period.
    pace
        About what it reserves in some seconds, to be compared with others'.
    known
        The most that it has heard of what all have spent and reserved.
    """

    worker: str
    number: int
    budget: float
    period_seconds: float
    period: int
    spent: float
    reserved: float
    calls: int
    limit: float
    pace: float
    known: float


class Lease(NamedTuple):
    """What a worker may spend.

    Parameters
    ----------
    period
        In which period.
    ends_in_seconds
        When that ends; infinity: never.
    limit
        What its calls may spend and reserve in it, in all.
    wanted
        Its fair part; less than `limit`: the rest is to be given back.
    spent, reserved, calls
        Of all other workers.
    """

    period: int
    ends_in_seconds: float
    limit: float
    wanted: float
    spent: float
    reserved: float
    calls: int
