"""What one call needs of whoever answers it, and who is known to lack that.

What the router itself knows of a candidate (tools, images, schemas) is checked
there. Here are the finer points, by the keys of LangChain's `ModelProfile` and
by whose form a tool has. Whatever is not known of a candidate is tried.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import BaseMessage

from mixllm_integrations.core.types import Requirement
from mixllm_integrations.langchain.candidates.blocks import inputs_of
from mixllm_integrations.langchain.capabilities import (
    FOLLOWS,
    CandidateModel,
    family_of,
)

if TYPE_CHECKING:
    from mixllm_integrations.langchain.binding import Binding

__all__ = ["NO_NEEDS", "Abilities", "Needs", "arguments_needs", "needs_of"]

_REASONS = {
    "attachment": "takes no files (profile attachment)",
    "audio_inputs": "takes no audio (profile audio_inputs)",
    "image_tool_message": (
        "takes no image in a tool's result (profile image_tool_message)"
    ),
    "image_url_inputs": "takes no image by its URL (profile image_url_inputs)",
    "pdf_inputs": "takes no PDF (profile pdf_inputs)",
    "pdf_tool_message": "takes no PDF in a tool's result (profile pdf_tool_message)",
    "structured_output": "has no mode for JSON schemas (profile structured_output)",
    "tool_choice": "cannot be forced to call a tool (profile tool_choice)",
    "video_inputs": "takes no video (profile video_inputs)",
    "anthropic_tools": "has none of Anthropic's own tools",
    "google_tools": "has none of Google's own tools",
    "openai_tools": "has none of OpenAI's own tools",
    "anthropic_form": "takes tools in Anthropic's form only by way of bind_tools",
    "openai_form": "takes tools in OpenAI's form only by way of bind_tools",
}
# Which of these are out of the question for models of a family.
_FOREIGN = {
    "anthropic": ("google_tools", "openai_tools", "openai_form"),
    "google": ("anthropic_tools", "openai_tools"),
    "openai": ("anthropic_tools", "google_tools", "anthropic_form"),
}
_OPENAI_TOOLS = frozenset(
    {
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "namespace",
        "shell",
        "tool_search",
        "web_search",
        "web_search_preview",
    }
)
_GOOGLE_TOOLS = frozenset(
    {"code_execution", "google_maps", "google_search", "url_context"}
)
_OPENAI_DATE = re.compile(r"_\d{4}_\d{2}_\d{2}$")
_ANTHROPIC_DATE = re.compile(r"_\d{8}$")

_TOOLS: tuple[Requirement, ...] = ("tools",)


class Needs(NamedTuple):
    """What a candidate must be capable of to answer one call.

    Parameters
    ----------
    requires
        What the router checks.
    details
        What `Abilities` checks.
    """

    requires: tuple[Requirement, ...] = ()
    details: frozenset[str] = frozenset()

    def also(self, other: "Needs") -> "Needs":
        """Return these needs and others.

        Parameters
        ----------
        other
            What is needed besides.

        Returns
        -------
        Needs
            Both.
        """
        if other is NO_NEEDS:
            return self
        if self is NO_NEEDS:
            return other
        return Needs(
            tuple(dict.fromkeys((*self.requires, *other.requires))),
            self.details | other.details,
        )


#: A plain text needs nothing.
NO_NEEDS = Needs()


def needs_of(
    messages: Iterable[BaseMessage],
    binding: "Binding | None",
    arguments: Mapping[str, Any],
) -> Needs:
    """Return what a call needs of whoever answers it.

    Parameters
    ----------
    messages
        All that will be sent.
    binding
        Its tools or schema; ``None`` if it has none.
    arguments
        Its other arguments.

    Returns
    -------
    Needs
        `NO_NEEDS` for a plain text.

    Examples
    --------
    >>> from langchain_core.messages import HumanMessage
    >>> block = {"type": "file", "base64": "AA==", "mime_type": "application/pdf"}
    >>> needs_of([HumanMessage([block])], None, {}).details
    frozenset({'pdf_inputs'})
    """
    needs = NO_NEEDS if binding is None else binding.needs
    if arguments:
        needs = needs.also(arguments_needs(arguments, converted=False))
    for message in messages:
        if isinstance(message.content, list):
            return needs.also(_inputs_needs(messages))
    return needs


def arguments_needs(arguments: Mapping[str, Any], *, converted: bool) -> Needs:
    """Return what the arguments of a call need.

    Parameters
    ----------
    arguments
        Among them may be `tools`, `tool_choice` and `response_format`.
    converted
        Whether the model's `bind_tools` puts the tools into its own form.

    Returns
    -------
    Needs
        `NO_NEEDS` if there are none of these.
    """
    tools = arguments.get("tools")
    schema = arguments.get("response_format")
    if not tools and schema is None:
        return NO_NEEDS
    details = set() if not tools else _forms_of(tools, converted=converted)
    if tools and _is_forced(arguments.get("tool_choice")):
        details.add("tool_choice")
    if schema is not None and not _is_json_mode(schema):
        details.add("structured_output")
    return Needs(_TOOLS if tools else (), frozenset(details))


class Abilities:
    """What each candidate of one model is known not to be capable of.

    Parameters
    ----------
    named
        The candidates with their names.

    Examples
    --------
    >>> from mixllm_integrations.testing import ScriptedChatModel
    >>> blind = CandidateModel(
    ...     model=ScriptedChatModel(), profile={"pdf_inputs": False}
    ... )
    >>> abilities = Abilities([("blind", blind)])
    >>> dict(abilities.barred(Needs(details=frozenset({"pdf_inputs"}))))
    {'blind': 'takes no PDF (profile pdf_inputs)'}
    """

    __slots__ = ("_barred", "_lacking")

    def __init__(self, named: Iterable[tuple[str, CandidateModel]]) -> None:
        self._lacking = {name: _lacks(candidate) for name, candidate in named}
        self._barred: dict[frozenset[str], Mapping[str, str]] = {
            frozenset(): MappingProxyType({})
        }

    def barred(self, needs: Needs) -> Mapping[str, str]:
        """Return who may not answer a call.

        Parameters
        ----------
        needs
            What the call needs.

        Returns
        -------
        mapping of str to str
            Reason by candidate name; the same object for the same needs.
        """
        details = needs.details
        barred = self._barred.get(details)
        if barred is None:
            reasons = {
                name: "; ".join(_REASONS[word] for word in sorted(details & lacks))
                for name, lacks in self._lacking.items()
                if not details.isdisjoint(lacks)
            }
            self._barred[details] = barred = MappingProxyType(reasons)
        return barred


def _lacks(candidate: CandidateModel) -> frozenset[str]:
    profile = candidate.known_profile()
    lacks = {key for key in _REASONS if profile.get(key) is False}
    for key, consequences in FOLLOWS.items():
        if profile.get(key) is False:  # says all; the router checks some of these
            lacks -= {*consequences}
    return frozenset(lacks.union(_FOREIGN.get(family_of(candidate.model) or "", ())))


def _inputs_needs(messages: Iterable[BaseMessage]) -> Needs:
    inputs = inputs_of(messages)
    requires: tuple[Requirement, ...] = ("vision",) if "image_inputs" in inputs else ()
    return Needs(requires, inputs - {"image_inputs"})


def _is_forced(choice: object) -> bool:
    """Tell whether a tool must be called, as far as the form is known."""
    if isinstance(choice, dict):
        kind = choice.get("type")
        if kind != "allowed_tools":
            return kind not in (None, "auto", "none")
        allowed = choice.get("allowed_tools")
        choice = (allowed if isinstance(allowed, dict) else choice).get("mode")
    return bool(choice) and choice not in ("auto", "none")


def _is_json_mode(schema: object) -> bool:
    """Tell whether any JSON will do, or no JSON at all is asked for."""
    return isinstance(schema, dict) and schema.get("type") in ("json_object", "text")


def _forms_of(tools: Sequence[object], *, converted: bool) -> set[str]:
    """Return whose tools some are, where it is certain."""
    forms = {_form_of(tool) for tool in tools if isinstance(tool, dict)}
    if not converted:
        forms |= {_raw_form_of(tool) for tool in tools if isinstance(tool, dict)}
    return forms - {""}


def _form_of(tool: Mapping[str, Any]) -> str:
    """Return which provider's own tool this is; "" for one that is defined."""
    kind = tool.get("type")
    if not isinstance(kind, str):
        return "google_tools" if _GOOGLE_TOOLS.issuperset(tool) and tool else ""
    if kind == "mcp_toolset" or _ANTHROPIC_DATE.search(kind):
        return "anthropic_tools"
    return "openai_tools" if _OPENAI_DATE.sub("", kind) in _OPENAI_TOOLS else ""


def _raw_form_of(tool: Mapping[str, Any]) -> str:
    """Return in whose form a tool is defined; "" for one that all may take."""
    if "function" in tool:
        return "openai_form"
    return "anthropic_form" if "input_schema" in tool else ""
