"""What a caller asks of one call, and the names under which it may be said.

Frameworks have their own place for it: LangChain ``config["configurable"]``.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Requirement

__all__ = [
    "CONTROLS",
    "NO_CACHE",
    "Asked",
    "CacheUse",
    "CallOptions",
    "Control",
    "checked_controls",
]

_NOBODY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """What a caller asks of one call.

    Parameters
    ----------
    candidate
        This candidate answers and no other, whatever the scores say.
    prefer
        This candidate answers if it is able to and is not cooling down, for
        example because it began a loop of tool calls; the others are there if
        it fails.
    barred
        Who may not answer, and why.
    max_failovers
        How often another candidate may take over, or be asked once more;
        ``None``: until each has been tried.
    give_up_after_seconds
        If all fail, those who may be well again are asked once more, until so
        long after the call began; 0: each is asked once.
    willingness_to_pay
        USD for one whole point of quality; ``None``: the router's own.
    waiting_tolerance_seconds
        How late an answer may start before it is worth nothing; ``None``: the
        router's own.
    max_cost_per_query
        Highest predicted cost in USD; ``None``: the router's own.
    session
        Calls of one session stay with one candidate for as long as that pays.
    shadow
        This candidate answers, and what the router would have done is noted.
    dry_run
        Only decide: nothing is counted as load, logged or learned.
    """

    candidate: str | None = None
    prefer: str | None = None
    barred: Mapping[str, str] = field(default_factory=lambda: _NOBODY)
    max_failovers: int | None = None
    give_up_after_seconds: float = 0.0
    willingness_to_pay: float | None = None
    waiting_tolerance_seconds: float | None = None
    max_cost_per_query: float | None = None
    session: str | None = None
    shadow: str | None = None
    dry_run: bool = False


class Asked(NamedTuple):
    """What is routed.

    Parameters
    ----------
    query
        The text.
    input_tokens
        Length of the whole prompt; ``None``: that of `query`.
    requires
        What the candidate must be capable of.
    among
        Names of the candidates that may answer; ``None``: all.
    """

    query: str
    input_tokens: int | None
    requires: tuple[Requirement, ...]
    among: Collection[str] | None


class CacheUse(NamedTuple):
    """How much of a prompt passed through the provider's cache, in tokens.

    Parameters
    ----------
    read
        Came out of it; ``None`` if the provider does not say.
    written
        Was put into it.
    """

    read: int | None = None
    written: int = 0


NO_CACHE = CacheUse()


class Control(NamedTuple):
    """One thing that may be asked of a call.

    Parameters
    ----------
    kind
        Its type.
    title, description
        For people.
    """

    kind: type
    title: str
    description: str


#: What a caller may ask, by name.
CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        "candidate": Control(
            str, "Candidate", "This candidate answers and no other one."
        ),
        "willingness_to_pay": Control(
            float, "Willingness to pay", "USD for one right answer more."
        ),
        "waiting_tolerance_seconds": Control(
            float,
            "Waiting tolerance",
            "How late an answer may start before it is worth nothing.",
        ),
        "max_cost_per_query": Control(
            float, "Highest cost", "Highest predicted cost of this query in USD."
        ),
        "give_up_after_seconds": Control(
            float,
            "Give up after",
            "How long after the call began those who failed are asked once more.",
        ),
        "session_id": Control(str, "Session ID", "Unique identifier for a session."),
        "shadow": Control(
            str,
            "Shadow",
            "This candidate answers; what the router would have done is noted.",
        ),
        "dry_run": Control(bool, "Dry run", "Decide and explain, call nobody."),
    }
)

_ABOVE_ZERO = frozenset({"willingness_to_pay", "waiting_tolerance_seconds"})


def checked_controls(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a caller asks, checked.

    Parameters
    ----------
    given
        Values by name; names that are not in `CONTROLS` belong to somebody
        else, ``None`` and ``""`` mean that nothing is asked.

    Returns
    -------
    dict
        By the names of `CONTROLS`; `session_id` as a ``str``.

    Raises
    ------
    ConfigurationError
        If a value cannot be used.

    Examples
    --------
    >>> checked_controls({"max_cost_per_query": 0.01, "thread_id": 7})
    {'max_cost_per_query': 0.01}
    """
    return {
        name: _checked(name, value)
        for name, value in given.items()
        if name in CONTROLS and value is not None and value != ""
    }


def _checked(name: str, value: Any) -> Any:  # noqa: ANN401
    kind = CONTROLS[name].kind
    if name == "session_id":
        return str(value)
    if kind is float:
        return number_between(value, name, low_is_allowed=name not in _ABOVE_ZERO)
    if not isinstance(value, kind):
        wanted = "the name of a candidate" if kind is str else "True or False"
        raise ConfigurationError(f"{name} must be {wanted}, not {value!r}")
    return value
