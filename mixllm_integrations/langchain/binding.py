"""Tools and schemas, kept as they were given until it is known who answers.

Each provider writes them in its own way, so the chosen model binds them
itself. What it made is kept: a candidate binds once, not once per call.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from mixllm_integrations.core.types import Requirement

__all__ = ["BINDING", "Binding", "SchemaBinding", "ToolBinding"]

#: Under which name a binding travels among the arguments of a call.
BINDING = "mixllm_binding"


class Binding:
    """What is done to the chosen model before it is called."""

    #: What a candidate must be capable of.
    requires: tuple[Requirement, ...] = ()

    def __init__(self) -> None:
        self._made: dict[str, tuple[BaseChatModel, Runnable[Any, Any]]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def on(self, name: str, model: BaseChatModel) -> Runnable[Any, Any]:
        """Return a candidate's model with this bound to it.

        Parameters
        ----------
        name
            The candidate's name.
        model
            Its model.

        Returns
        -------
        Runnable
            The same object each time for one candidate's model.
        """
        made = self._made.get(name)
        if made is None or made[0] is not model:
            made = self._made[name] = (model, self._bind(model))
        return made[1]

    def _bind(self, model: BaseChatModel) -> Runnable[Any, Any]:
        return model


class ToolBinding(Binding):
    """Tools that the answer may call.

    Parameters
    ----------
    tools
        As the caller gave them.
    tool_choice
        Which must be called; ``None``: not passed on.
    kwargs
        Whatever else the model's own `bind_tools` takes, such as `strict`.
    """

    requires: tuple[Requirement, ...] = ("tools",)

    def __init__(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        tool_choice: str | dict[str, Any] | bool | None,  # noqa: FBT001
        kwargs: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.tools = list(tools)
        self._kwargs = dict(kwargs)
        if tool_choice is not None:
            self._kwargs["tool_choice"] = tool_choice

    def _bind(self, model: BaseChatModel) -> Runnable[Any, Any]:
        return model.bind_tools(self.tools, **self._kwargs)


class SchemaBinding(Binding):
    """A schema that the answer must fill.

    Parameters
    ----------
    schema
        As the caller gave it.
    include_raw
        Whether the message is returned beside what was parsed.
    kwargs
        Whatever else the model's own `with_structured_output` takes, such as
        `method`.
    """

    requires: tuple[Requirement, ...] = ("structured_output",)

    def __init__(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool,
        kwargs: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.schema = schema
        self.include_raw = include_raw
        self._kwargs = dict(kwargs)

    def _bind(self, model: BaseChatModel) -> Runnable[Any, Any]:
        return model.with_structured_output(
            self.schema, include_raw=self.include_raw, **self._kwargs
        )
