"""The router's own encoder where LangChain takes embeddings."""

from langchain_core.embeddings import Embeddings

from mixllm_integrations.core.encoder import Encoder, StaticEncoder

__all__ = ["MixLLMEmbeddings"]


class MixLLMEmbeddings(Embeddings):
    """Embeddings on this machine: no key, no torch, no download.

    Parameters
    ----------
    encoder
        Any encoder, for example ``router.encoder``; ``None``: the shipped one.

    Examples
    --------
    >>> vectors = MixLLMEmbeddings().embed_documents(["the sea", "the tide"])
    >>> len(vectors), round(sum(x * x for x in vectors[0]), 3)
    (2, 1.0)
    """

    def __init__(self, encoder: Encoder | None = None) -> None:
        self._encoder: Encoder = StaticEncoder.load() if encoder is None else encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector of length 1 per text.

        Parameters
        ----------
        texts
            What to embed.

        Returns
        -------
        list of list of float
            In the order of the texts.
        """
        vectors: list[list[float]] = self._encoder.encode(list(texts)).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one text.

        Parameters
        ----------
        text
            What to embed.

        Returns
        -------
        list of float
            Of length 1.
        """
        return self.embed_documents([text])[0]
