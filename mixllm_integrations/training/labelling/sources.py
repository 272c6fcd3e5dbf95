"""Who is asked and who judges: out of a file of candidates, or as objects."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from pydantic import ValidationError

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.serving.candidates_file import (
    CandidatesFile,
    read_candidates_file,
)
from mixllm_integrations.serving.candidates_tables import CandidateEntry
from mixllm_integrations.serving.chat_models import chat_model
from mixllm_integrations.training.labelling.asking import Asked, CandidateLike
from mixllm_integrations.training.labelling.prompts import digest_of

__all__ = ["Candidates", "JudgeLike", "asked_of", "judge_of"]

Candidates = str | PathLike[str] | CandidatesFile | Sequence[CandidateLike]
JudgeLike = str | CandidateLike

# Their clients try again on their own, unseen: here each attempt is paid for.
_OWN_RETRIES = frozenset(
    {"anthropic", "azure_openai", "deepseek", "groq", "openai", "xai"}
)


def _file_of(candidates: Candidates) -> CandidatesFile | None:
    """Return the file of candidates, if it is one.

    Parameters
    ----------
    candidates
        A path, a file that was read, or objects.
    """
    if isinstance(candidates, str | PathLike):
        return read_candidates_file(Path(candidates))
    return candidates if isinstance(candidates, CandidatesFile) else None


def asked_of(candidates: Candidates, *, max_output_tokens: int) -> list[Asked]:
    """Return whom to ask.

    Parameters
    ----------
    candidates
        A path of a ``candidates.toml``, what was read of one, or objects such as
        `CandidateModel`.
    max_output_tokens
        The longest answer that each may give.

    Raises
    ------
    ConfigurationError
        If one cannot be asked, or two have one name.
    """
    file = _file_of(candidates)
    if file is not None:
        return [
            _from_file(file, entry, max_output_tokens, "candidates", number)
            for number, entry in enumerate(file.candidates)
        ]
    assert not isinstance(candidates, str | PathLike | CandidatesFile)  # noqa: S101
    found = [_from_object(one, max_output_tokens) for one in candidates]
    names = [one.name for one in found]
    if not found or len(set(names)) < len(names):
        raise ConfigurationError(
            f"candidates must be several of different names, not {names}"
        )
    return found


def judge_of(
    judge: JudgeLike | None, candidates: Candidates, *, max_output_tokens: int
) -> Asked | None:
    """Return who judges; ``None`` if nobody was named.

    Parameters
    ----------
    judge
        ``"provider:name"``, the name of a candidate in the file, an object such as
        `CandidateModel`; ``None``: the table ``[judge]`` of the file, if there is
        one.
    candidates
        As for `asked_of`.
    max_output_tokens
        The longest verdict that it may give.

    Raises
    ------
    ConfigurationError
        If it cannot be asked.
    """
    if judge is not None and not isinstance(judge, str):
        return _from_object(judge, max_output_tokens)
    file = _file_of(candidates)
    own = None if file is None else file.judge
    if judge is None or (own and judge in {own.model, own.known_name}):
        if own is None or file is None:
            return None
        return _from_file(file, own, max_output_tokens, "judge")
    if file is not None:
        for number, entry in enumerate(file.candidates):
            if judge == entry.known_name:
                place = ("candidates", number)
                return _from_file(file, entry, max_output_tokens, *place)
    try:
        entry = CandidateEntry(model=judge)
    except ValidationError:
        raise ConfigurationError(
            f"unknown judge {judge!r}: write provider:name, such as openai:gpt-4o, or "
            "the name of a candidate in the file"
        ) from None
    alone = CandidatesFile(candidates=[entry]).read_from(Path("--judge"), None)
    return _from_file(alone, entry, max_output_tokens)


def _from_file(
    file: CandidatesFile, entry: CandidateEntry, most: int, *place: str | int
) -> Asked:
    defaults = {"max_retries": 0} if entry.provider in _OWN_RETRIES else {}
    return Asked(
        file.fact(entry, *place),
        chat_model(file, entry, *place, **defaults),
        most,
        # Not the name: who is called otherwise answers as before.
        identity=digest_of(entry.model, entry.arguments),
        timeout_seconds=entry.timeout_seconds,
    )


def _from_object(given: CandidateLike, most: int) -> Asked:
    if not isinstance(given, CandidateLike):
        raise ConfigurationError(
            "a candidate must be a CandidateModel around a chat model, not a "
            f"{type(given).__name__}"
        )
    seconds = getattr(given, "timeout_seconds", None)
    return Asked(given.candidate(), given.model, most, timeout_seconds=seconds)
