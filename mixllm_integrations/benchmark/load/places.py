"""Where events and live state are kept while load is measured, and nothing after."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["BOTH", "NONE", "POSTGRES", "REDIS", "SQLITE", "Databases", "Place", "place"]

NONE, SQLITE, POSTGRES = "no store", "SQLite", "PostgreSQL"
REDIS, BOTH = "Redis", "PostgreSQL and Redis"
_NEEDS_POSTGRES, _NEEDS_REDIS = (POSTGRES, BOTH), (REDIS, BOTH)


@dataclass(frozen=True, slots=True)
class Databases:
    """The servers that may be used; their URLs may hold passwords.

    Parameters
    ----------
    postgres, redis
        URLs; ``None``: there is none.
    """

    postgres: str | None = field(default=None, repr=False)
    redis: str | None = field(default=None, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Which places there can be, in order."""
        wanted = (NONE, SQLITE, POSTGRES, REDIS, BOTH)
        return tuple(name for name in wanted if self.why_not(name) is None)

    @property
    def skipped(self) -> dict[str, str]:
        """Which places there cannot be, and why."""
        reasons = {name: self.why_not(name) for name in (POSTGRES, REDIS, BOTH)}
        return {name: why for name, why in reasons.items() if why is not None}

    def why_not(self, name: str) -> str | None:
        """Return what a place lacks.

        Parameters
        ----------
        name
            Of the place.
        """
        if name in _NEEDS_POSTGRES and not self.postgres:
            return "no PostgreSQL: pass --postgres URL, or set MIXLLM_TEST_POSTGRES"
        if name in _NEEDS_REDIS and not self.redis:
            return "no Redis: pass --redis URL, or set MIXLLM_TEST_REDIS"
        return None


@dataclass(frozen=True, slots=True)
class Place:
    """What a routed model is given.

    Parameters
    ----------
    name
        Of the kind.
    store, shared_state
        URLs, or ``None``.
    """

    name: str
    store: str | None = field(default=None, repr=False)
    shared_state: str | None = field(default=None, repr=False)


@contextmanager
def place(name: str, servers: Databases, folder: Path) -> Iterator[Place]:
    """Give a new, empty place, and remove it afterwards.

    Parameters
    ----------
    name
        Of the kind.
    servers
        Which there are; in PostgreSQL a schema is made, in Redis a namespace.
    folder
        For files.

    Yields
    ------
    Place
        Ready for use.

    Raises
    ------
    ConfigurationError
        If a server is needed that is not there.
    """
    if (why := servers.why_not(name)) is not None:
        raise ConfigurationError(f"{name}: {why}")
    own = f"mixllm_load_{uuid.uuid4().hex[:12]}"
    with _store(name, servers, folder / f"{own}.db", own) as store:
        if name not in _NEEDS_REDIS or servers.redis is None:
            yield Place(name, store)
            return
        with _namespace(servers.redis, own) as shared_state:
            yield Place(name, store, shared_state)


@contextmanager
def _store(name: str, servers: Databases, file: Path, own: str) -> Iterator[str | None]:
    if name in _NEEDS_POSTGRES and servers.postgres is not None:
        with _schema(servers.postgres, own) as url:
            yield url
    else:
        yield f"sqlite:///{file}" if name == SQLITE else None


@contextmanager
def _schema(url: str, own: str) -> Iterator[str]:
    import sqlalchemy as sa

    from mixllm_integrations.store.urls import parsed

    plain = parsed(url)
    engine = sa.create_engine(plain)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(own))
    inner = plain.update_query_dict({"options": f"-csearch_path={own}"})
    try:
        yield inner.render_as_string(hide_password=False)
    finally:
        with engine.begin() as connection:
            connection.execute(sa.schema.DropSchema(own, cascade=True))
        engine.dispose()


@contextmanager
def _namespace(url: str, own: str) -> Iterator[str]:
    import redis

    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), "namespace": own}
    try:
        yield urlunsplit(parts._replace(query=urlencode(query)))
    finally:
        query.pop("namespace")
        bare = urlunsplit(parts._replace(query=urlencode(query)))
        with redis.Redis.from_url(bare) as client:
            for key in client.scan_iter(f"{{{own}}}*", count=1000):
                client.delete(key)
