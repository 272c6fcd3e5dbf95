"""Reads the URL of a store, and sees to it that no password is ever shown."""

import hashlib
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["fingerprint", "parsed", "reason", "shown"]

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_DIGEST_BYTES = 12


def parsed(url: str) -> URL:
    """Return the parts of a store's URL, with the driver that is used.

    Parameters
    ----------
    url
        As a user writes it.

    Returns
    -------
    URL
        Of SQLite or of PostgreSQL through psycopg.

    Raises
    ------
    ConfigurationError
        If it cannot be read, is of another database, or is in memory only.

    Examples
    --------
    >>> parsed("postgres://me@db/prod").drivername
    'postgresql+psycopg'
    """
    try:
        found = make_url(url)
    except (ArgumentError, ValueError, AttributeError):
        raise ConfigurationError(
            "the store's URL cannot be read (it is not shown, it may hold a "
            "password); write sqlite:///file.db or "
            "postgresql+psycopg://user:password@host:port/database"
        ) from None
    if found.drivername not in _DRIVERS:
        raise ConfigurationError(
            f"a store cannot be opened with {found.drivername!r}; "
            "use 'sqlite' or 'postgresql+psycopg'"
        )
    found = found.set(drivername=_DRIVERS[found.drivername])
    if found.drivername == "sqlite" and _in_memory(found):
        raise ConfigurationError(
            "an in-memory SQLite database is not one log for all threads: name a "
            "file (sqlite:///file.db), or pass store=None to keep no log"
        )
    return found


def _in_memory(url: URL) -> bool:
    database = url.database or ""
    return not database or ":memory:" in database or url.query.get("mode") == "memory"


def shown(url: URL) -> str:
    """Return what may be shown of a URL: driver, place and database.

    Parameters
    ----------
    url
        What `parsed` returns.
    """
    if url.drivername == "sqlite":
        return f"sqlite:///{url.database}"
    # An '@' left in the host is the tail of a password that was not quoted.
    host = "***" if "@" in (url.host or "") else (url.host or "")
    port = f":{url.port}" if url.port else ""
    return f"{url.drivername}://{host}{port}/{url.database or ''}"


def fingerprint(url: URL) -> str:
    """Return a name for the database behind a URL, without telling anything of it.

    Parameters
    ----------
    url
        What `parsed` returns.

    Returns
    -------
    str
        24 hexadecimal digits. A new password does not change them; another
        server, database, user or schema does.

    Examples
    --------
    >>> old = fingerprint(parsed("postgresql://me:old@db/prod"))
    >>> old == fingerprint(parsed("postgresql://me:new@db/prod"))
    True
    >>> old == fingerprint(parsed("postgresql://me:old@db/test"))
    False
    """
    if url.drivername == "sqlite":
        place = str(Path(url.database or "").absolute())
        parts = ["sqlite", place]
    else:
        options = {k: v for k, v in url.query.items() if "pass" not in k}
        parts = [
            *(url.drivername, url.username or "", url.host or ""),
            *(str(url.port or 5432), url.database or "", repr(sorted(options.items()))),
        ]
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).hexdigest()


def reason(error: DBAPIError, url: URL) -> str:
    """Return why a database cannot be opened, in the driver's words.

    Parameters
    ----------
    error
        What was raised.
    url
        Whose secrets are left out.

    Returns
    -------
    str
        One line.
    """
    if "@" in (url.host or ""):
        return "quote special characters of the password, an '@' as %40"
    text = str(error.orig).strip().split("\n", maxsplit=1)[0]
    secrets = [url.password, *(v for v in url.query.values() if isinstance(v, str))]
    for secret in filter(None, map(str, filter(None, secrets))):
        text = text.replace(secret, "***")
    return text or type(error.orig).__name__
