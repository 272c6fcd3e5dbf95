"""The router's own encoder where LlamaIndex takes an embedding."""

import asyncio
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import PrivateAttr

from mixllm_integrations.core.encoder import Encoder, StaticEncoder

__all__ = ["MixLLMEmbedding"]


class MixLLMEmbedding(BaseEmbedding):
    """An embedding on this machine: no key, no torch, no download.

    Parameters
    ----------
    encoder
        Any encoder, for example ``llm.router.encoder``; ``None``: the shipped one.
    **settings
        What every LlamaIndex embedding takes.

    Examples
    --------
    >>> vector = MixLLMEmbedding().get_text_embedding("the sea")
    >>> round(sum(x * x for x in vector), 3)
    1.0
    """

    _encoder: Encoder = PrivateAttr()

    def __init__(self, encoder: Encoder | None = None, **settings: Any) -> None:  # noqa: ANN401
        encoder = StaticEncoder.load() if encoder is None else encoder
        super().__init__(**{"model_name": encoder.id, **settings})
        self._encoder = encoder

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex knows it."""
        return "MixLLMEmbedding"

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors: list[Embedding] = self._encoder.encode(list(texts)).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._get_text_embedding(query)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await self._aget_text_embedding(query)
