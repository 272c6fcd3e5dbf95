"""Tools and schemas, kept as they were given until it is known who answers.

Each provider writes them in its own way, so the chosen model binds them
itself. What it made is kept: a candidate binds once, not once per call.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import ValidationError

from mixllm_integrations.langchain.candidates.needs import (
    NO_NEEDS,
    Needs,
    arguments_needs,
)
from mixllm_integrations.langchain.capabilities import family_of

__all__ = ["BINDING", "Binding", "SchemaBinding", "ToolBinding"]

#: Under which name a binding travels among the arguments of a call.
BINDING = "mixllm_binding"


class Binding:
    """What is done to the chosen model before it is called."""

    #: What a candidate must be capable of.
    needs: Needs = NO_NEEDS

    def __init__(self) -> None:
        self._made: dict[str, tuple[BaseChatModel, Runnable[Any, Any]]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: all that changes is what was bound, and copies share it."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was bound: another process binds its own models."""
        return self.__dict__ | {"_made": {}}

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
        Which must be called; ``None``: not passed on. Candidates of OpenAI and
        Anthropic are also told in their own words what the other one's, or a
        bool, would mean.
    kwargs
        Whatever else the model's own `bind_tools` takes, such as `strict`.
    """

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
        self.needs = arguments_needs(
            {**self._kwargs, "tools": self.tools}, converted=True
        )

    def _bind(self, model: BaseChatModel) -> Runnable[Any, Any]:
        kwargs = self._kwargs
        if "tool_choice" in kwargs:
            choice = _choice_for(family_of(model), kwargs["tool_choice"])
            kwargs = {**kwargs, "tool_choice": choice}
        return model.bind_tools(self.tools, **kwargs)


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
        needs = _BY_METHOD.get(str(self._kwargs.get("method")), _ANY_METHOD)
        self.needs = needs.also(
            arguments_needs({"tools": self._kwargs.get("tools")}, converted=True)
        )

    @property
    def name(self) -> str:
        """What the schema is called; empty if it has no name."""
        schema = self.schema
        if isinstance(schema, Mapping):
            return str(schema.get("title") or schema.get("name") or "")
        return getattr(schema, "__name__", "")

    def is_filled_by(self, answer: object) -> bool:
        """Tell whether an answer, as it is returned, could be parsed.

        Parameters
        ----------
        answer
            What was parsed; with `include_raw` a dict with that in it.

        Returns
        -------
        bool
            True also for a call of a tool that was offered beside the schema.
        """
        if self.include_raw and isinstance(answer, Mapping):
            if answer.get("parsing_error") is not None:
                return False
            answer = answer.get("parsed")
        return answer is not None or bool(self._kwargs.get("tools"))

    def is_broken_by(self, error: BaseException) -> bool:
        """Tell whether an error says that an answer is not of this schema.

        Parameters
        ----------
        error
            What a call raised; OpenAI's client parses before LangChain does.

        Returns
        -------
        bool
            True for Pydantic's error on a class of this name.
        """
        named = getattr(error, "title", None)
        return isinstance(error, ValidationError) and named == self.name

    def _bind(self, model: BaseChatModel) -> Runnable[Any, Any]:
        return model.with_structured_output(
            self.schema, include_raw=self.include_raw, **self._kwargs
        )


# Without a method, and with "json_mode", each class takes its own way.
_ANY_METHOD = Needs(("structured_output",))
_BY_METHOD = {
    "function_calling": Needs(("structured_output", "tools")),
    "json_schema": Needs(("structured_output",), frozenset({"structured_output"})),
}


def _choice_for(family: str | None, choice: object) -> object:
    """Return a choice of tools in words that a class is known to take."""
    if family not in ("anthropic", "openai"):
        return choice
    meant = _meaning_of(choice)
    if meant is None:
        return choice
    if meant == "none" and family == "anthropic":
        return {"type": "none"}  # it would take the word for a tool's name
    return meant


def _meaning_of(choice: object) -> str | None:
    """Return what both call a choice; ``None`` if it says more than a word."""
    match choice:
        case True | "any" | "required":
            return "any"
        case str():
            return choice
        case {"type": "any" | "required", **more} if not more:
            return "any"
        case {"type": "auto" | "none" as word, **more} if not more:
            return str(word)
        case {"type": "tool" | "function", "name": str(name), **more} if not more:
            return name
        case {"type": "function", "function": {"name": str(name)}}:
            return name
    return None
