"""How an answer is graded: by a reference where there is one, else by a judge."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.training.labelling.code_tests import passes
from mixllm_integrations.training.labelling.prompts import PromptItem

__all__ = [
    "GradedBy",
    "OwnScorer",
    "by_own",
    "by_reference",
    "fits_schema",
    "is_same",
    "matches",
]

#: A grade in [0, 1] for an answer to a prompt; may be a coroutine.
OwnScorer: TypeAlias = Callable[[PromptItem, str], float | Awaitable[float]]
GradedBy: TypeAlias = str | OwnScorer

_LONGEST_SEARCHED = 200_000


def is_same(answer: str, reference: object) -> bool:
    """Tell whether an answer is the right one, but for case, spaces and a full stop.

    Parameters
    ----------
    answer
        What a candidate said.
    reference
        The right answer, or a list of right ones.

    Examples
    --------
    >>> is_same(" The  Moon.", "the moon"), is_same("42", [41, 42]), is_same("4", "5")
    (True, True, False)
    """
    right = reference if isinstance(reference, list) else [reference]
    return any(_plain(answer) == _plain(str(one)) for one in right)


def _plain(text: str) -> str:
    return " ".join(text.split()).strip("\"'` ").rstrip(".").casefold()


def matches(answer: str, pattern: object) -> bool:
    """Tell whether a pattern is found anywhere in an answer.

    Parameters
    ----------
    answer
        What a candidate said.
    pattern
        A regular expression of Python; ``^`` and ``$`` are ends of lines.

    Raises
    ------
    ConfigurationError
        If it is none.
    """
    try:
        found = re.search(str(pattern), answer[:_LONGEST_SEARCHED], re.MULTILINE)
    except re.error as error:
        raise ConfigurationError(f"the reference is no pattern: {error.msg}") from error
    return found is not None


def fits_schema(answer: str, schema: object) -> bool:
    """Tell whether an answer is JSON that fits a schema.

    Parameters
    ----------
    answer
        What a candidate said; a fence around the JSON is overlooked.
    schema
        A JSON schema, as an object or as text. References to other documents
        are not followed.

    Raises
    ------
    ConfigurationError
        If the schema is none, or jsonschema is not installed.
    """
    try:
        from jsonschema import validators
        from jsonschema.exceptions import SchemaError
        from jsonschema.exceptions import ValidationError as Unfit
        from referencing import Registry
        from referencing.exceptions import Unresolvable
    except ImportError as error:
        raise ConfigurationError(
            "grading by a JSON schema needs jsonschema: "
            "pip install 'mixllm-integrations[judge]'"
        ) from error
    try:
        wanted: Any = json.loads(schema) if isinstance(schema, str) else schema
        if not isinstance(wanted, dict):
            raise ConfigurationError("the reference is no JSON schema")
        kind = validators.validator_for(wanted)
        kind.check_schema(wanted)
    except (ValueError, SchemaError) as error:
        raise ConfigurationError("the reference is no JSON schema") from error
    try:
        text = re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", answer)
        kind(wanted, registry=Registry()).validate(json.loads(text))
    except (Unfit, ValueError, RecursionError):
        return False
    except Unresolvable as error:
        raise ConfigurationError(
            "the JSON schema refers to another document: write it in"
        ) from error
    return True


async def by_reference(
    kind: str, item: PromptItem, answer: str, *, allow_code: bool
) -> float:
    """Return the grade of an answer whose reference is known: 1 or 0.

    Parameters
    ----------
    kind
        ``"exact"``, ``"regex"``, ``"json_schema"`` or ``"code"``.
    item
        What was asked.
    answer
        What a candidate said.
    allow_code
        Whether code of models may be run; see `code_tests`.

    Raises
    ------
    ConfigurationError
        If the reference cannot be used, or code may not be run.
    """
    if item.reference is None:
        raise ConfigurationError(f"scorer {kind!r} needs a reference")
    if kind == "code":
        if not allow_code:
            raise ConfigurationError(
                "scorer 'code' runs what models wrote on this machine: allow it by "
                "allow_code=True (--allow-code)"
            )
        tests = str(item.reference)
        return float(await asyncio.to_thread(passes, answer, tests))
    checks = {"exact": is_same, "regex": matches, "json_schema": fits_schema}
    return float(checks[kind](answer, item.reference))


async def by_own(scorer: OwnScorer, item: PromptItem, answer: str) -> float:
    """Return what a function of the user says.

    Parameters
    ----------
    scorer
        The function.
    item, answer
        What it is asked about.

    Raises
    ------
    ConfigurationError
        If it gives no number in [0, 1].
    """
    told = scorer(item, answer)
    if not isinstance(told, int | float):
        told = await told
    return number_between(told, "a grade", high=1.0, truth_is_allowed=True)
