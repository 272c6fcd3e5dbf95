"""A conversation, made readable for whoever answers next.

Its answers may come from several providers. Each puts things into them that only
it can read again: reasoning with a signature, ids of items that it has stored,
tools that ran on its servers. Another one refuses the whole conversation for
them, so they are left out of what it is sent. What was said and which tools were
called stays, and the conversation itself is never changed.
"""

import operator
from collections.abc import Mapping
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage

from mixllm_integrations.langchain.history.blocks import (
    as_said,
    legible,
    unmarked,
    unread_marks,
    without_reasoning,
)
from mixllm_integrations.langchain.history.ids import CallIds
from mixllm_integrations.serving import RECORD_KEY

__all__ = ["adapted", "provider_of"]

# Some sign their answers with another name than the one they are traced under.
_ALIASES = {
    "amazon_bedrock": "bedrock",
    "anthropic-mantle": "anthropic",
    "azure_openai": "azure",
    "bedrock_converse": "bedrock",
    "mistral": "mistralai",
    "openai-codex": "openai",
    "openai-mantle": "openai",
}
# Where the classes of these keep the address they call, and which is their own.
_ADDRESSES = {
    "openai": ("openai_api_base", "openai.com"),
    "anthropic": ("anthropic_api_url", "anthropic.com"),
}
# Their answers refer to what an account has stored, or one model has signed.
_STORING = frozenset({"openai", "azure"})
_SIGNING = frozenset({"anthropic", "bedrock", "google_vertexai"})


def provider_of(model: BaseChatModel) -> str | None:
    """Return who serves a chat model, in the sense of `adapted`.

    Parameters
    ----------
    model
        Any chat model.

    Returns
    -------
    str or None
        As it tells tracers; ``None`` if it does not, or if it calls another server
        than its provider's, which may be anybody's.
    """
    told = model._get_ls_params().get("ls_provider")  # noqa: SLF001 - as tracers ask
    field, domain = _ADDRESSES.get(told or "", ("", ""))
    address = getattr(model, field, None) if field else None
    host = urlsplit(address).hostname if isinstance(address, str) else None
    is_elsewhere = host is not None and not f".{host}".endswith(f".{domain}")
    return None if is_elsewhere else told


def adapted(
    messages: list[BaseMessage],
    *,
    provider: str | None,
    providers: Mapping[str, str | None],
    candidate: str | None = None,
) -> list[BaseMessage]:
    """Return a conversation as the candidate that is asked now can read it.

    Parameters
    ----------
    messages
        From first to last; neither the list nor a message is changed.
    provider
        Whose candidate is asked, as `provider_of` tells; ``None``: unknown.
    providers
        The same for each candidate by name, since answers carry who wrote them.
    candidate
        Who is asked. What another candidate of the same provider has signed or
        stored goes as well; ``None``: one provider's candidates are as one.

    Returns
    -------
    list of BaseMessage
        The same object if nothing had to change, else a new list in which only
        changed messages are copies. An answer of which nothing is left is not in
        it; every tool call and every tool's result is.
    """
    reader = _Reader(provider, providers, candidate)
    read = list(map(reader.read, messages))
    if all(map(operator.is_, read, messages)):
        return messages
    return [message for message in read if message is not None]


class _Reader:
    """Reads one conversation, message by message, in order."""

    __slots__ = ("_candidate", "_ids", "_provider", "_providers", "_unread")

    def __init__(
        self,
        provider: str | None,
        providers: Mapping[str, str | None],
        candidate: str | None,
    ) -> None:
        self._provider = provider = _canonical(provider)
        self._providers = providers
        self._candidate = candidate
        self._unread = unread_marks(provider)
        self._ids = CallIds.of(provider)

    def read(self, message: BaseMessage) -> BaseMessage | None:
        if isinstance(message, AIMessage):
            answer = self._answer(message)
            if answer is None:
                return None
            message = answer
        if self._unread and (
            message.additional_kwargs or not isinstance(message.content, str)
        ):
            message = unmarked(message, self._unread)
        return message if self._ids is None else self._ids.renamed(message)

    def _answer(self, message: AIMessage) -> AIMessage | None:
        metadata = message.response_metadata
        record = metadata.get(RECORD_KEY)
        who = record.get("candidate") if isinstance(record, dict) else None
        if who is not None and who == self._candidate:
            return message
        author, is_another = metadata.get("model_provider"), False
        if isinstance(who, str):
            author = self._providers.get(who, author)
            is_another = self._candidate is not None
        author = _canonical(author)
        if author is None and not is_another:
            return legible(message, self._provider)
        if author is None or author != self._provider:
            return as_said(message)
        if not is_another:
            return message
        if author in _STORING:
            return as_said(message)
        return without_reasoning(message) if author in _SIGNING else message


def _canonical(provider: object) -> str | None:
    return _ALIASES.get(provider, provider) if isinstance(provider, str) else None
