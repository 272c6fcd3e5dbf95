"""Where an answer carries the id of the decision it came from.

LangChain messages have ``response_metadata["mixllm"]``, LlamaIndex responses
and messages ``additional_kwargs["mixllm"]``; a structured answer asked for
with ``include_raw=True`` has its message under ``"raw"``.
"""

from collections.abc import Mapping

from mixllm_integrations.core.errors import ConfigurationError

__all__ = ["RECORD_KEY", "decision_id_of", "record_of"]

#: Under which name the routing record stands in an answer's metadata.
RECORD_KEY = "mixllm"

_METADATA = ("response_metadata", "additional_kwargs")
_WRAPPERS = ("message", "raw")


def record_of(answer: object) -> Mapping[str, object] | None:
    """Return the routing record that an answer carries.

    Parameters
    ----------
    answer
        A message, a response, or a routing record itself.

    Returns
    -------
    Mapping or None
        ``None`` if it carries none.
    """
    if isinstance(answer, Mapping):
        if "decision_id" in answer:
            return answer
        inner = answer.get(RECORD_KEY) or answer.get("raw")
        return None if inner is None else record_of(inner)
    for place in _METADATA:
        metadata = getattr(answer, place, None)
        if isinstance(metadata, Mapping):
            record = metadata.get(RECORD_KEY)
            if isinstance(record, Mapping):
                return record
    for place in _WRAPPERS:
        inner = getattr(answer, place, None)
        if any(hasattr(inner, name) for name in _METADATA):
            return record_of(inner)
    return None


def decision_id_of(answer: object) -> str:
    """Return the id of the decision that an answer came from.

    Parameters
    ----------
    answer
        The id itself, or anything that `record_of` reads.

    Returns
    -------
    str
        The id.

    Raises
    ------
    ConfigurationError
        If there is none.

    Examples
    --------
    >>> decision_id_of({"decision_id": "d1", "candidate": "small"})
    'd1'
    """
    if isinstance(answer, str):
        return answer
    record = record_of(answer)
    if record is not None and record.get("dry_run"):
        raise ConfigurationError("a dry run has no answer that could be judged")
    found = None if record is None else record.get("decision_id")
    if not isinstance(found, str):
        raise ConfigurationError(
            f"no decision is recorded on this {type(answer).__name__}: pass an answer "
            "of the routed model as it was returned, or its "
            f'["{RECORD_KEY}"]["decision_id"]'
        )
    return found
