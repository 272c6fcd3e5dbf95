"""A shared state in Redis: a few keys under one prefix, all of which expire.

Of the keys of a namespace all but the money of a budget without periods vanish by
themselves within two hours, or within a period and an hour.
"""

import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mixllm_integrations.core.errors import ConfigurationError
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
from mixllm_integrations.store.live.protocol import (
    EVEN_PART,
    LEASE_SECONDS,
    LOAD_SECONDS,
    LONG_AGO_SECONDS,
    SESSION_SECONDS,
    SESSIONS_AT_ONCE,
    SESSIONS_KEPT,
    SPARE_PART,
    WELL_SECONDS,
    SharedStateError,
)
from mixllm_integrations.store.live.scripts import EXCHANGE, LEASE
from mixllm_integrations.store.live.urls import place_of

__all__ = ["RedisState"]

_TIMEOUT_SECONDS = 0.4  # our choice: of connecting, and of each answer
_MICRO = 1e6
_LONGEST_SECONDS = 1e8  # three years; a rest may have no end


class RedisState:
    """A `SharedState` in Redis 5 or later; connects when it is first used.

    Parameters
    ----------
    url
        ``"redis://user:password@host:6379/0"``, ``"rediss://…"``, ``"unix://…"``,
        with ``?namespace=myapp``: workers with the same one meet. All else in the
        query is for the package `redis`, for example ``ssl_ca_certs``.
    timeout_seconds
        How long connecting, and each answer, may take.
    clock
        Seconds; ``None``: the server's own clock.
    spare_part
        Part of a budget's money that is leased to nobody, so that a worker that has
        just begun finds some.

    Raises
    ------
    ConfigurationError
        If the URL cannot be read, or the package `redis` is missing. That nobody
        answers there is no error until it is used.

    Notes
    -----
    Source: our choice. Each step is one script, so it happens in whole or not at
    all, in one round trip. All keys share one hash tag: a cluster has them on one
    node.

    Examples
    --------
    >>> RedisState("redis://:secret@cache:6379/0?namespace=shop")
    RedisState('redis://cache:6379/0', namespace='shop')
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        clock: Callable[[], float] | None = None,
        spare_part: float = SPARE_PART,
    ) -> None:
        self._place = place_of(url)
        self._timeout = timeout_seconds
        self._clock = clock
        self._spare = spare_part
        prefix = f"{{{self._place.namespace}}}:"
        names = ("workers", "loads", "rests", "sessions")
        self._keys = [prefix + name for name in names]
        self._purse = prefix + "purse:"
        self.begin_anew()

    @property
    def identity(self) -> str:
        """Where it is, without secrets."""
        return f"{self._place.shown}?namespace={self._place.namespace}"

    def begin_anew(self) -> None:
        """Connect anew at the next use; connections are the parent process's."""
        self._lock = threading.Lock()
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise ConfigurationError(
                "a shared state in Redis needs the package redis: "
                "pip install 'mixllm-integrations[redis]'"
            ) from None
        self._errors = (redis.RedisError, OSError, ValueError, TypeError)
        try:
            self._client = redis.Redis.from_url(
                self._place.url,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),
            )
            # Says what is wrong with the options, and connects to nobody.
            self._client.connection_pool.make_connection()
        except (ValueError, TypeError, redis.RedisError) as error:
            raise ConfigurationError(
                f"the URL of the shared state cannot be used: {self._clean(error)}"
            ) from None
        self._exchange = self._client.register_script(EXCHANGE)
        self._lease = self._client.register_script(LEASE)

    def exchange(self, told: Told) -> Heard:
        """Tell what a worker has to tell, and hear the others, in one round trip.

        Parameters
        ----------
        told
            What is told.
        """
        arguments: list[Any] = [
            *(self._now(), told.worker, told.number, _loads(told)),
            *(_micro(LOAD_SECONDS), os.urandom(8).hex(), told.cursor),
            *(_micro(SESSION_SECONDS), SESSIONS_KEPT, SESSIONS_AT_ONCE),
            len(told.rests),
        ]
        for rest in told.rests:
            arguments += _written(rest)
        arguments.append(len(told.sessions))
        for note in told.sessions:
            text = json.dumps([note.session, note.candidate, note.tokens])
            arguments += [_micro(note.age), text]
        answer = self._run(self._exchange, self._keys, arguments)
        return _heard(answer, told.worker)

    def lease(self, request: LeaseRequest) -> Lease:
        """Lease a part of a budget.

        Parameters
        ----------
        request
            How the worker's money stands.
        """
        length = request.period_seconds
        micro = round(length * _MICRO) if length < float("inf") else 0
        arguments = [
            *(self._now(), request.worker, request.number, repr(request.budget)),
            *(micro, request.period, repr(request.spent), repr(request.reserved)),
            *(request.calls, repr(request.limit), repr(request.pace)),
            *(repr(request.known), _micro(LEASE_SECONDS), EVEN_PART),
            *(_micro(LONG_AGO_SECONDS), self._spare),
        ]
        answer = self._run(self._lease, [f"{self._purse}{micro}"], arguments)
        period, ends, limit, wanted, spent, reserved, calls = answer
        return Lease(
            int(period),
            int(ends) / _MICRO if micro else float("inf"),
            *(float(limit), float(wanted), float(spent), float(reserved)),
            calls=int(calls),
        )

    def close(self) -> None:
        """Give up all connections; closing twice is harmless."""
        self._client.close()

    def __repr__(self) -> str:
        place = self._place
        return f"RedisState({place.shown!r}, namespace={place.namespace!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as its URL, which holds the password."""
        url, sep = self._place.url, "&" if "?" in self._place.url else "?"
        return RedisState, (f"{url}{sep}namespace={self._place.namespace}",)

    def _now(self) -> str | int:
        return "" if self._clock is None else _micro(self._clock())

    def _run(
        self, script: Callable[..., Any], keys: Sequence[str], arguments: Iterable[Any]
    ) -> list[Any]:
        with self._lock:
            try:
                answer = script(keys=keys, args=list(arguments))
            except self._errors as error:
                text = self._clean(error)
                raise SharedStateError(f"{type(error).__name__}: {text}") from None
        if not isinstance(answer, list):
            raise SharedStateError("a message was overtaken by a later one")
        return answer

    def _clean(self, error: Exception) -> str:
        text = str(error).strip().split("\n", maxsplit=1)[0]
        for secret in self._place.secrets:
            text = text.replace(secret, "***")
        return text


def _micro(seconds: float) -> int:
    return round(min(max(seconds, -_LONGEST_SECONDS), _LONGEST_SECONDS) * _MICRO)


def _loads(told: Told) -> str:
    return json.dumps({name: [*load] for name, load in told.loads.items()})


def _written(rest: RestNote) -> list[Any]:
    keep = WELL_SECONDS if rest.well else rest.keep
    return [
        *(json.dumps(rest.candidate), rest.base, _micro(rest.age), _micro(rest.since)),
        *(_micro(rest.remaining), _micro(rest.seconds), int(rest.told)),
        *(int(rest.reopened), int(rest.well), int(rest.probing), _micro(keep)),
    ]


def _heard(answer: list[Any], worker: str) -> Heard:
    epoch, others, versions, standing, now, cursor, entries = answer
    loads: dict[str, Load] = {}
    for written in others:
        _add(loads, written)
    sessions = []
    for entry_id, fields in entries:
        cursor = entry_id
        note = _session(fields, int(now), worker)
        if note is not None:
            sessions.append(note)
    return Heard(
        epoch=epoch.decode(),
        loads=loads,
        versions=[int(version) for version in versions],
        rests=[rest for rest in map(_rest, standing) if rest is not None],
        sessions=sessions,
        cursor=cursor.decode(),
        is_all=len(entries) < SESSIONS_AT_ONCE,
    )


def _add(loads: dict[str, Load], written: bytes) -> None:
    """Add the load of a worker; one that cannot be read is left out."""
    try:
        found = json.loads(written.partition(b" ")[2]).items()
        own = {name: Load(int(calls), float(tokens)) for name, (calls, tokens) in found}
    except (ValueError, TypeError, AttributeError, OverflowError):
        return
    for name, load in own.items():
        if load.calls > 0 and 0.0 <= load.tokens < float("inf"):
            before = loads.get(name, Load(0, 0.0))
            loads[name] = Load(before.calls + load.calls, before.tokens + load.tokens)


def _rest(parts: list[bytes]) -> HeardRest | None:
    try:
        name = json.loads(parts[0])
    except ValueError:
        return None
    version, since, remaining, seconds, *flags = map(int, parts[1:])
    return HeardRest(
        str(name),
        version,
        *(since / _MICRO, remaining / _MICRO, seconds / _MICRO),
        *map(bool, flags),
    )


def _session(fields: list[bytes], now: int, worker: str) -> SessionNote | None:
    """Return a note of another worker; ``None`` if it cannot be read."""
    given = dict(zip(fields[::2], fields[1::2], strict=False))
    if given.get(b"w") == worker.encode():
        return None
    try:
        session, candidate, tokens = json.loads(given[b"n"])
        age = max(now - int(given[b"at"]), 0) / _MICRO
        return SessionNote(str(session), str(candidate), int(tokens), age)
    except (LookupError, ValueError, TypeError):
        return None
