"""Fills a JSON schema with values that stand in a prompt.

A scripted model that is made to call a tool has to say something that fits the
tool's schema. What it says is found in the prompt where that is possible, so
that tests can tell by the answer what was asked.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["filled"]

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"")


def filled(schema: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """Return an object that fits a JSON schema.

    Parameters
    ----------
    schema
        Of an object; ``$ref`` into its own ``$defs`` is followed.
    prompt
        Numbers and quoted words of it are used in the order in which they
        stand there.

    Returns
    -------
    dict
        Every property of the schema, required or not.

    Examples
    --------
    >>> filled({"properties": {"a": {"type": "integer"}}}, "double 21")
    {'a': 21}
    """
    return _Filler(schema, prompt).object_of(schema)


class _Filler:
    def __init__(self, root: Mapping[str, Any], prompt: str) -> None:
        self._definitions = root.get("$defs") or root.get("definitions") or {}
        self._numbers = iter(_NUMBER.findall(prompt))
        quoted = [a or b for a, b in _QUOTED.findall(prompt)]
        self._words = iter(quoted)

    def object_of(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        return {name: self._value(name, part) for name, part in properties.items()}

    def _value(self, name: str, schema: Mapping[str, Any]) -> Any:  # noqa: ANN401
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        makers: dict[str, Callable[[], Any]] = {
            "integer": lambda: int(float(next(self._numbers, "1"))),
            "number": lambda: float(next(self._numbers, "1")),
            "boolean": lambda: True,
            "array": lambda: [self._value(name, schema.get("items") or {})],
            "object": lambda: self.object_of(schema),
            "null": lambda: None,
        }
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, Sequence) and not isinstance(kind, str):
            kind = kind[0]
        make = makers.get(kind)
        return next(self._words, f"some {name}") if make is None else make()

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for keyword in ("anyOf", "oneOf", "allOf"):
            if schema.get(keyword):
                return self._resolved(schema[keyword][0])
        reference = schema.get("$ref")
        if isinstance(reference, str):
            found = self._definitions.get(reference.rsplit("/", 1)[-1], {})
            return self._resolved(found)
        return schema
