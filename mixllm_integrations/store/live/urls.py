"""Reads the URL of a Redis, and sees to it that no password is ever shown."""

from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["RedisPlace", "place_of"]

_SCHEMES = ("redis", "rediss", "unix")
_NAMESPACE = "mixllm"
_LONGEST = 64


class RedisPlace(NamedTuple):
    """Where a Redis is, and what of it is ours.

    Parameters
    ----------
    url
        As the package `redis` takes it; holds the password.
    shown
        What may be shown.
    namespace
        What all keys begin with.
    secrets
        What may not be shown.
    """

    url: str
    shown: str
    namespace: str
    secrets: tuple[str, ...]


def place_of(url: str) -> RedisPlace:
    """Return what a URL says.

    Parameters
    ----------
    url
        As a user writes it.

    Returns
    -------
    RedisPlace
        Its parts.

    Raises
    ------
    ConfigurationError
        If it cannot be read, or the namespace cannot be used.

    Examples
    --------
    >>> place = place_of("redis://:secret@cache:6379/1?namespace=shop")
    >>> place.shown, place.namespace, place.url
    ('redis://cache:6379/1', 'shop', 'redis://:secret@cache:6379/1')
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        parts, port, host = None, None, ""
    if parts is None or parts.scheme not in _SCHEMES:
        raise ConfigurationError(
            "the URL of the shared state cannot be read (it is not shown, it may hold "
            "a password); write redis://user:password@host:6379/0, rediss:// for TLS, "
            "or unix:///path; quote special characters of a password, an '@' as %40"
        )
    options = parse_qsl(parts.query, keep_blank_values=True)
    namespace = dict(options).get("namespace", _NAMESPACE)
    if not _is_usable(namespace):
        raise ConfigurationError(
            f"namespace must have 1 to {_LONGEST} letters, digits and ._:- only, not "
            f"{namespace[: 2 * _LONGEST]!r}"
        )
    rest = [(name, value) for name, value in options if name != "namespace"]
    bare = urlunsplit(parts._replace(query=urlencode(rest), fragment=""))
    secrets = [unquote(parts.password or ""), parts.password or ""]
    secrets += [value for name, value in rest if "pass" in name]
    return RedisPlace(
        url=bare,
        shown=f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}",
        namespace=namespace,
        secrets=tuple(secret for secret in secrets if secret),
    )


def _is_usable(namespace: str) -> bool:
    plain = namespace.translate(str.maketrans("", "", "._:-"))
    return 0 < len(namespace) <= _LONGEST and plain.isascii() and plain.isalnum()
