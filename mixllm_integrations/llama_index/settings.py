"""What a routed LLM may be given, checked before it is used."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from inspect import signature
from typing import Any

from llama_index.core.base.llms.generic_utils import messages_to_prompt
from llama_index.core.llms import LLM
from llama_index.core.llms.llm import default_completion_to_prompt

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Candidate
from mixllm_integrations.llama_index.candidates import CandidateLLM
from mixllm_integrations.serving.given import check_numbers, check_router

__all__ = ["candidates_of", "check_settings", "restored"]

# How an LLM fills prompts, which each candidate does in its own way.
_OWN = ("completion_to_prompt", "messages_to_prompt", "query_wrapper_prompt")
_DEFAULTS = (default_completion_to_prompt, messages_to_prompt)


def check_settings(
    kind: type[LLM], settings: Mapping[str, Any], *, router: object = None
) -> None:
    """Raise if a routed LLM cannot work with these.

    Parameters
    ----------
    kind
        Its class.
    settings
        What it was given beside its candidates.
    router
        The router that it was given.

    Raises
    ------
    ConfigurationError
        If a name is unknown, or a value cannot be used.
    """
    own = set(signature(kind).parameters) - {"settings"}
    allowed = sorted(own | kind.model_fields.keys())
    unknown = sorted(settings.keys() - set(allowed))
    if unknown:
        raise ConfigurationError(
            f"unknown argument {unknown[0]!r}; MixLLM takes: {', '.join(allowed)}. "
            "What LLMs of one provider take belongs on the candidates' own LLMs"
        )
    for name in _OWN:
        given = settings.get(name)
        if given is not None and given not in _DEFAULTS:
            raise ConfigurationError(
                f"{name} is the form of one model: pass it to the candidates' own LLMs"
            )
    check_router(router)
    check_numbers(settings, ("timeout", "willingness_to_pay"))


def candidates_of(given: object) -> Sequence[LLM | CandidateLLM]:
    """Return what was passed as candidates, if it is several.

    Parameters
    ----------
    given
        LLMs, bare or with facts about them.

    Returns
    -------
    sequence
        In their order.

    Raises
    ------
    ConfigurationError
        If it is not several of these.
    """
    # An LLM can be iterated over too: it yields its fields.
    is_single = isinstance(given, LLM | CandidateLLM | str | Mapping)
    if is_single or not isinstance(given, Iterable):
        raise ConfigurationError(
            "candidates must be a list of LlamaIndex LLMs, not a "
            f"{type(given).__name__}: pass candidates=[first_llm, second_llm]"
        )
    return list(given)


def restored(data: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by which an LLM is made again.

    Parameters
    ----------
    data
        What `to_dict` has written.
    given
        What was passed besides, the LLMs above all.

    Returns
    -------
    dict
        Arguments of the constructor.

    Raises
    ------
    ConfigurationError
        If no LLMs were passed.
    """
    told = data.get("candidates") or []
    if not given.get("candidates"):
        names = ", ".join(repr(one.get("name")) for one in told)
        raise ConfigurationError(
            "to_dict keeps no LlamaIndex LLM, since those hold keys: pass "
            f"candidates=[...] with the LLMs of {names}"
        )
    entries = candidates_of(given["candidates"])
    by_name = {one["name"]: one for one in told}
    in_place = told if len(told) == len(entries) else [{}] * len(entries)
    again = [
        _restored(one, by_name, former)
        for one, former in zip(entries, in_place, strict=True)
    ]
    return {**data, **given, "candidates": again}


def _restored(
    given: LLM | CandidateLLM,
    by_name: Mapping[str, Mapping[str, Any]],
    in_place: Mapping[str, Any],
) -> LLM | CandidateLLM:
    if not isinstance(given, LLM | CandidateLLM):
        return given
    entry = given if isinstance(given, CandidateLLM) else CandidateLLM(llm=given)
    facts = by_name.get(entry.known_name())
    if facts is None and entry.name is None:
        facts = in_place
    known = {
        fact.name: facts[fact.name]
        for fact in fields(Candidate)
        if facts and fact.name in facts and getattr(entry, fact.name) is None
    }
    return replace(entry, **known)
