"""What a protocol of the loopback server can do, and what they share."""

from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

from mixllm_integrations.testing.wire.parts import Answer, Ask, Body, Refusal

__all__ = ["Event", "WireProtocol", "check_known"]

#: One event of a stream: its name, if the protocol names them, and its data.
Event: TypeAlias = tuple[str | None, Body | str]


class WireProtocol(Protocol):
    """Reads a provider's requests, and writes as that provider does."""

    def read(self, body: Body, *, strict_keys: bool) -> Ask:
        """Return what a request asks for.

        Parameters
        ----------
        body
            The request.
        strict_keys
            Whether a key that the protocol does not know is refused.

        Returns
        -------
        Ask
            The request as every protocol understands it.

        Raises
        ------
        Refusal
            If the provider would refuse it.
        """

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return an answer that comes as a whole.

        Parameters
        ----------
        answer
            What is said.

        Returns
        -------
        dict
            The response's body.
        """

    def events(self, answer: Answer) -> Iterator[Event]:
        """Yield an answer that comes in pieces.

        Parameters
        ----------
        answer
            What is said.

        Yields
        ------
        tuple
            The events of the stream.
        """

    def refused(self, refusal: Refusal, number: int) -> dict[str, Any]:
        """Return an error as the provider tells it.

        Parameters
        ----------
        refusal
            What is wrong.
        number
            For its id.

        Returns
        -------
        dict
            The response's body.
        """

    def broken(self, refusal: Refusal, number: int) -> Event:
        """Return an error that is told in mid-stream.

        Parameters
        ----------
        refusal
            What is wrong.
        number
            For its id.

        Returns
        -------
        tuple
            The last event of the stream.
        """

    def too_long(self, words: int, window: int) -> Refusal:
        """Return how a prompt is refused that is longer than the window.

        Parameters
        ----------
        words
            The prompt's length.
        window
            What the model takes.

        Returns
        -------
        Refusal
            To be raised.
        """


def check_known(
    given: Body, known: frozenset[str], told: str, *, code: str | None = None
) -> None:
    """Raise if an object has a key that its protocol does not know.

    Parameters
    ----------
    given
        The object.
    known
        Its keys.
    told
        What is said of another one, with ``{key}`` in it.
    code
        What the provider calls that mistake.

    Raises
    ------
    Refusal
        At the first such key.
    """
    for key in given:
        if key not in known:
            raise Refusal(told.format(key=key), code=code)
