"""What a caller asks of the choice, for calls that it does not make itself.

Query engines, agents and workflows call the LLM on their own, and have no place for
arguments of ours. So what is asked travels in a context variable.
"""

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.serving import CONTROLS, checked_controls

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router

__all__ = ["Asking", "asked_now"]


class Asking:
    """A block of code in which all calls of one router are asked the same.

    Made by `MixLLM.asking`. It notes what was decided in it, so it can stand for an
    answer that carries no routing record: `MixLLM.record_feedback` takes it.

    Parameters
    ----------
    router
        Whose calls.
    controls
        What is asked of them.

    Attributes
    ----------
    controls
        What is asked.
    records
        The routing records of the answers that have come, first to last.
    """

    __slots__ = ("_router", "_token", "controls", "records")

    def __init__(self, router: "Router", controls: Mapping[str, Any]) -> None:
        unknown = sorted(set(controls) - CONTROLS.keys())
        if unknown:
            raise ConfigurationError(
                f"unknown control {unknown[0]!r}; of a call may be asked: "
                f"{', '.join(CONTROLS)}"
            )
        self._router = router
        self._token: Token[tuple[Asking, ...]] | None = None
        self.controls = checked_controls(controls)
        self.records: list[dict[str, Any]] = []

    @property
    def record(self) -> dict[str, Any] | None:
        """The routing record of the last answer; ``None``: there was none."""
        return self.records[-1] if self.records else None

    @property
    def cost(self) -> float:
        """What the answers have cost so far, in USD."""
        return sum((record["cost"] or 0.0) for record in self.records)

    def keep(self, record: dict[str, Any]) -> None:
        """Note the routing record of an answer.

        Parameters
        ----------
        record
            As long as the answer is arriving, its cost is ``None``.
        """
        last = self.record
        if last is not None and last["decision_id"] == record["decision_id"]:
            last.update(record)
        else:
            self.records.append(record)

    def is_for(self, router: "Router") -> bool:
        """Tell whether it is about calls of a router.

        Parameters
        ----------
        router
            Who decides.

        Returns
        -------
        bool
            Whether it is.
        """
        return self._router is router

    def __enter__(self) -> Self:
        self._token = _ASKED.set((*_ASKED.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        token, self._token = self._token, None
        try:
            if token is not None:
                _ASKED.reset(token)
        except ValueError:  # it was entered in another task
            _ASKED.set(tuple(one for one in _ASKED.get() if one is not self))


_ASKED: ContextVar[tuple[Asking, ...]] = ContextVar("mixllm_asking", default=())


def asked_now(router: "Router") -> tuple[Asking, ...]:
    """Return the blocks of code that we are in.

    Parameters
    ----------
    router
        Whose calls they are about.

    Returns
    -------
    tuple of Asking
        The innermost last.
    """
    asked = _ASKED.get()
    return tuple(one for one in asked if one.is_for(router)) if asked else ()
