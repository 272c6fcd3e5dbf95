"""What the candidates are asked: one prompt of one's own traffic."""

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.serving.query import (
    TOKENS_PER_MESSAGE,
    routed_text,
    text_tokens,
)

__all__ = [
    "SCORERS",
    "PromptItem",
    "as_items",
    "digest_of",
    "item_of",
    "messages_in",
    "sampled",
    "text_in",
]

#: How an answer may be graded.
SCORERS = ("exact", "regex", "json_schema", "code", "judge", "pairwise")

_ROLES = {
    "ai": "assistant",
    "assistant": "assistant",
    "developer": "developer",
    "human": "user",
    "system": "system",
    "user": "user",
}
_TEXT_BLOCKS = frozenset({"input_text", "output_text", "text"})


@dataclass(frozen=True, slots=True)
class PromptItem:
    """One prompt, with what its answers are graded by.

    Parameters
    ----------
    messages
        ``(role, text)`` from first to last; roles are ``"user"``, ``"system"``,
        ``"developer"`` and ``"assistant"``, and the last one is not the latter.
    reference
        What a right answer is: the answer itself, a pattern, a JSON schema, or
        tests in Python, by `scorer`; ``None``: nobody knows.
    scorer
        One of `SCORERS`; ``None``: ``"exact"`` with a reference, else a judge.
    tags
        What it is about.
    """

    messages: tuple[tuple[str, str], ...]
    reference: Any = None
    scorer: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1][0] == "assistant":
            raise ConfigurationError("a prompt must end with what is asked")
        if not self.query.strip():
            raise ConfigurationError("a prompt must not be empty")
        if self.scorer is not None and self.scorer not in SCORERS:
            raise ConfigurationError(
                f"unknown scorer {self.scorer!r}; use one of {SCORERS}"
            )

    @property
    def query(self) -> str:
        """The text that a router would route."""
        return routed_text(self.messages)

    @property
    def digest(self) -> str:
        """What tells it from other prompts: the same for the same messages."""
        return digest_of("prompt", self.messages)

    @property
    def most_tokens(self) -> int:
        """More tokens than any tokenizer makes of it: one per byte of UTF-8."""
        return sum(
            len(text.encode("utf-8", "surrogatepass")) + 4 * TOKENS_PER_MESSAGE
            for _, text in self.messages
        )

    @property
    def likely_tokens(self) -> int:
        """About how many tokens it has."""
        return sum(text_tokens(text) + TOKENS_PER_MESSAGE for _, text in self.messages)


def digest_of(*parts: object) -> str:
    """Return a digest of values that JSON can hold.

    Parameters
    ----------
    *parts
        The values.
    """
    whole = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()


def messages_in(given: object) -> tuple[tuple[str, str], ...]:
    """Return a conversation out of a text or a list of messages.

    Parameters
    ----------
    given
        A text, or messages as OpenAI, LangChain and LangSmith write them.

    Raises
    ------
    ConfigurationError
        If it is neither, or holds something that is no text, such as images or
        calls of tools; never shows it.
    """
    if isinstance(given, str):
        return (("user", given),)
    if not isinstance(given, Sequence) or not given:
        raise ConfigurationError("a prompt must be a text or a list of messages")
    if len(given) == 1 and isinstance(given[0], list):  # LangSmith: a list of lists
        given = given[0]
    return tuple(_message(one) for one in given)


def _message(given: object) -> tuple[str, str]:
    if isinstance(given, list | tuple) and len(given) == 2:
        role, content = given
    elif isinstance(given, Mapping):
        own = given.get("kwargs") or given.get("data") or given
        if not isinstance(own, Mapping):
            raise ConfigurationError("a message has no content")
        role = own.get("role") or own.get("type") or given.get("type")
        content = own.get("content")
        if given.get("type") == "constructor" and role == "constructor":
            role = str((given.get("id") or [""])[-1]).removesuffix("Message").lower()
    else:
        raise ConfigurationError("a message must be an object with role and content")
    known = _ROLES.get(str(role).lower())
    if known is None:
        raise ConfigurationError(
            f"a message's role must be one of {sorted(_ROLES)}; conversations with "
            "calls of tools are not labelled"
        )
    return known, text_in(content)


def text_in(content: object) -> str:
    """Return the text of a message's content.

    Parameters
    ----------
    content
        A text, or a list of blocks of text.

    Raises
    ------
    ConfigurationError
        If it is anything else.
    """
    if isinstance(content, str):
        return content
    texts = []
    for block in content if isinstance(content, list) else [None]:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, Mapping) and block.get("type") in _TEXT_BLOCKS:
            texts.append(str(block.get("text", "")))
        else:
            raise ConfigurationError("a message holds something that is no text")
    return "".join(texts)


def as_items(
    prompts: Iterable[str | PromptItem | Mapping[str, Any]],
) -> list[PromptItem]:
    """Return prompts in any form as items, each once.

    Parameters
    ----------
    prompts
        Texts, items, or objects with ``prompt``, ``query`` or ``messages`` and
        what else `PromptItem` has.

    Raises
    ------
    ConfigurationError
        If there is none, or one cannot be used.

    Examples
    --------
    >>> [item.query for item in as_items(["2 + 2?", {"query": "2 + 2?"}, "Why?"])]
    ['2 + 2?', 'Why?']
    """
    found: dict[str, PromptItem] = {}
    if isinstance(prompts, str | Mapping):
        raise ConfigurationError("prompts must be a list of them, or a path")
    for given in prompts:
        item = given if isinstance(given, PromptItem) else item_of(given)
        found.setdefault(item.digest, item)
    if not found:
        raise ConfigurationError("there are no prompts: give at least one")
    return list(found.values())


def item_of(given: str | Mapping[str, Any]) -> PromptItem:
    """Return one prompt in any form as an item.

    Parameters
    ----------
    given
        A text, or an object with named fields.

    Raises
    ------
    ConfigurationError
        If it holds no prompt, or a field cannot be used.
    """
    if isinstance(given, str):
        return PromptItem(messages_in(given))
    if not isinstance(given, Mapping):
        raise ConfigurationError("a prompt must be a text or an object")
    asked = next(
        (given[n] for n in ("messages", "prompt", "query", "input") if given.get(n)),
        None,
    )
    if asked is None:
        raise ConfigurationError(
            "there is no prompt: write it under the name prompt, query or messages"
        )
    if isinstance(asked, str) and asked.lstrip().startswith("[{"):  # out of a CSV
        with suppress(ValueError):  # a text may begin like JSON
            asked = json.loads(asked)
    messages = messages_in(asked)
    if messages[-1][0] == "assistant":  # the answer that a log holds
        messages = messages[:-1]
    reference, scorer = given.get("reference"), given.get("scorer") or None
    return PromptItem(
        messages,
        None if reference == "" else reference,
        scorer,
        _tags(given.get("tags") or ()),
    )


def _tags(given: object) -> tuple[str, ...]:
    parts = given.split(";") if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or any(
        not isinstance(p, str) for p in parts
    ):
        raise ConfigurationError("tags are not a list of strings")
    return tuple(part.strip() for part in parts if part.strip())


def sampled(
    items: Sequence[PromptItem], count: int | None, seed: int
) -> list[PromptItem]:
    """Return some of the prompts by lot; more of them are a longer list of these.

    So a run with a larger sample goes on where a smaller one ended.

    Parameters
    ----------
    items
        All prompts.
    count
        How many; ``None``: all, in an order by lot.
    seed
        Decides which.
    """
    # By a digest, so that what else a file holds changes little of the order.
    lots = random.Random(seed)  # noqa: S311 - nobody guesses it for gain
    salt = str(lots.random())
    order = sorted(items, key=lambda item: digest_of(salt, item.digest))
    return order if count is None else order[:count]
