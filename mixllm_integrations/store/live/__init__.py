"""What workers know of each other right now: load, rests, sessions, leases of money.

Beside the log of events, which says what was learned: nothing in here outlives
its use, and losing it stops nothing. `open_shared_state` turns what a user passes
as ``shared_state=`` into a `SharedState`; `RedisState` keeps it in Redis,
`MemoryState` in one process.
"""

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.store.live.memory import MemoryState
from mixllm_integrations.store.live.notes import (
    Heard,
    HeardRest,
    Lease,
    LeaseRequest,
    Load,
    RestNote,
    SessionNote,
    Told,
)
from mixllm_integrations.store.live.protocol import SharedState, SharedStateError

__all__ = [
    "Heard",
    "HeardRest",
    "Lease",
    "LeaseRequest",
    "Load",
    "MemoryState",
    "RestNote",
    "SessionNote",
    "SharedState",
    "SharedStateError",
    "Told",
    "open_shared_state",
]


def open_shared_state(given: str | SharedState | None) -> SharedState | None:
    """Return the shared state that a user means.

    Parameters
    ----------
    given
        A URL, ``"redis://host:6379/0"``, ``"rediss://…"`` or ``"unix://…"``, with
        ``?namespace=myapp`` where several applications use one Redis; a
        `SharedState`, which is returned as it is; or ``None``, which stays ``None``.

    Returns
    -------
    SharedState or None
        Nothing is connected yet.

    Raises
    ------
    ConfigurationError
        If it is none of these, if the URL cannot be read, or if the package
        `redis` is missing. The message never shows a password.

    Examples
    --------
    >>> open_shared_state(None) is None
    True
    """
    if given is None:
        return None
    if isinstance(given, str):
        from mixllm_integrations.store.live.redis import RedisState

        return RedisState(given)
    if isinstance(given, SharedState):
        return given
    raise ConfigurationError(
        "shared_state must be a URL, a SharedState or None, not a "
        f"{type(given).__name__}; a URL is for example 'redis://localhost:6379/0'"
    )
