"""One call of the routed LLM: what is asked, of whom, and on what terms."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
)
from llama_index.core.instrumentation.span import active_span_id

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Requirement
from mixllm_integrations.llama_index.asking import Asking, asked_now
from mixllm_integrations.llama_index.candidates import CandidateLLM
from mixllm_integrations.llama_index.history import adapted, author_of
from mixllm_integrations.llama_index.messages import (
    answering_in_loop,
    has_images,
    query_of,
    whole_texts,
)
from mixllm_integrations.serving import CONTROLS, RoutedCall, checked_controls
from mixllm_integrations.serving.wishes import wish_of

if TYPE_CHECKING:
    from mixllm_integrations.llama_index.pool import LLMPool

__all__ = ["Request", "chat_told", "completion_told", "nothing_told", "text_told"]

_MANY_MESSAGES = 500  # to read them all takes longer than a loop should wait
_UUID_LENGTH = 36


class Request:
    """One call, from its arguments to the decision.

    What is asked of it is read when the method is called, so that of a stream too,
    which is routed when its first chunk is asked for.

    Parameters
    ----------
    pool
        Who was called.
    messages
        The conversation.
    kwargs
        Arguments of the call; what speaks of the choice is taken out of them.
    requires
        What the candidate must be capable of.
    form
        What the answer must be like, for example the name of a schema.
    """

    __slots__ = (
        "_asked",
        "_controls",
        "_form",
        "_named",
        "_requires",
        "messages",
        "pool",
        "span_id",
    )

    def __init__(
        self,
        pool: "LLMPool",
        messages: Sequence[ChatMessage],
        kwargs: dict[str, Any],
        *,
        requires: tuple[Requirement, ...] = (),
        form: str = "",
    ) -> None:
        if isinstance(messages, str | ChatMessage):
            raise ConfigurationError(
                f"messages must be a list of ChatMessage, not a "
                f"{type(messages).__name__}: pass [message], or a text to complete()"
            )
        self.pool = pool
        self.messages = list(messages)
        self._requires = requires
        self._form = form
        self._asked: tuple[Asking, ...] = asked_now(pool.router)
        self._named = pool.meant_by(kwargs.get("model"))
        if self._named:
            del kwargs["model"]
        controls: dict[str, Any] = {}
        for asked in self._asked:
            controls.update(asked.controls)
        given = {name: kwargs.pop(name) for name in CONTROLS if name in kwargs}
        if given:
            controls.update(checked_controls(given))
        self._controls = controls
        self.span_id = active_span_id.get()

    @property
    def is_slow(self) -> bool:
        """Whether deciding may take longer than an event loop should wait."""
        return self.pool.decides_slowly or len(self.messages) > _MANY_MESSAGES

    def begin(self) -> RoutedCall:
        """Decide who answers.

        Returns
        -------
        RoutedCall
            The call.

        Raises
        ------
        NoCandidateError
            If no candidate is able to.
        """
        pool, messages = self.pool, self.messages
        query, input_tokens = query_of(messages, pool.query_from)
        requires = self._requires
        if has_images(messages):
            requires = (*requires, "vision")
        wish = wish_of(
            pool,
            messages,
            self._controls,
            texts=lambda: [text for m in messages for text in whole_texts(m)],
            requires=requires,
            loop=answering_in_loop(messages),
            named=self._named,
        )
        return pool.dispatcher.begin(
            query,
            input_tokens=input_tokens,
            requires=wish.requires,
            among=wish.among,
            options=wish.options,
            form=self._form,
        )

    def seconds_for(self, candidate: CandidateLLM) -> float | None:
        """Return how long a candidate is waited for.

        Parameters
        ----------
        candidate
            Who is asked.

        Returns
        -------
        float or None
            Seconds to the answer, or to the first chunk that says something;
            ``None``: as long as it takes.
        """
        own = candidate.timeout_seconds
        return self.pool.timeout if own is None else own

    def sent_to(self, candidate: CandidateLLM) -> list[ChatMessage]:
        """Return the conversation as a candidate can read it.

        Parameters
        ----------
        candidate
            Who is asked.

        Returns
        -------
        list of ChatMessage
            A new list.
        """
        return adapted(self.messages, candidate, self._authors())

    def _authors(self) -> Mapping[str, CandidateLLM]:
        """Return the candidates by the names that they had when they answered, too."""
        by_name = self.pool.seats.by_name
        written = {author for m in self.messages if (author := author_of(m))}
        former = written - by_name.keys()
        if not former:
            return by_name
        now = {old: self.pool.dispatcher.renames.current(old) for old in former}
        renamed = {old: by_name[name] for old, name in now.items() if name in by_name}
        return {**by_name, **renamed}

    def keep(self, record: dict[str, Any]) -> None:
        """Note the record of an answer for those who asked.

        Parameters
        ----------
        record
            The routing record.
        """
        for asked in self._asked:
            asked.keep(record)

    def note_run(self, decision_id: str, *event_ids: str) -> None:
        """Note a decision under the ids of the call's span and events.

        Parameters
        ----------
        decision_id
            Which decision.
        *event_ids
            UUIDs.
        """
        ids = [*event_ids]
        if self.span_id is not None:
            ids.append(self.span_id[-_UUID_LENGTH:])
        self.pool.run_ids.note(decision_id, *map(_uuid, ids))


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:  # a handler may name spans as it likes
        return None


def chat_told(call: RoutedCall) -> ChatResponse:
    """Return what stands for the answer of a chat that only decides.

    Parameters
    ----------
    call
        A dry run.

    Returns
    -------
    ChatResponse
        Its message explains the decision.
    """
    text = call.decision.explain()
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta=text
    )


def completion_told(call: RoutedCall) -> CompletionResponse:
    """Return what stands for a completion of a call that only decides.

    Parameters
    ----------
    call
        A dry run.

    Returns
    -------
    CompletionResponse
        Its text explains the decision.
    """
    text = call.decision.explain()
    return CompletionResponse(text=text, delta=text)


def text_told(call: RoutedCall) -> str:
    """Return what stands for the text of a call that only decides.

    Parameters
    ----------
    call
        A dry run.

    Returns
    -------
    str
        It explains the decision.
    """
    return call.decision.explain()


def nothing_told(call: RoutedCall) -> Any:  # noqa: ANN401
    """Raise, since a decision is no object of a schema.

    Parameters
    ----------
    call
        A dry run.

    Raises
    ------
    ConfigurationError
        Always.
    """
    raise ConfigurationError(
        f"a dry run has no object of a schema; it would be asked of "
        f"{call.candidate!r}: make the dry run with chat or complete"
    )
