"""One call of the model: who is asked, what comes back, what is reported.

Everything here is free of waiting, so the synchronous and the asynchronous
methods of the model share it.
"""

from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import Runnable

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Requirement
from mixllm_integrations.langchain.binding import BINDING, Binding, SchemaBinding
from mixllm_integrations.langchain.messages import (
    Spent,
    loop_candidate,
    spent_on,
    turns_of,
    with_record,
    with_vision,
)
from mixllm_integrations.langchain.seats import Seat
from mixllm_integrations.serving import (
    CallOptions,
    RoutedCall,
    conversation_tokens,
    routed_text,
    text_tokens,
)

if TYPE_CHECKING:
    from mixllm_integrations.langchain.pool import ModelPool

__all__ = ["Request", "UsageWatch"]


class UsageWatch(BaseCallbackHandler):
    """Hears what the LLM run inside a structured call used.

    The call itself returns what was parsed, which does not tell.
    """

    run_inline = True

    def __init__(self) -> None:
        self.message: AIMessage | None = None
        self.usage: UsageMetadata | None = None

    def on_llm_end(
        self,
        response: LLMResult,
        *,
        run_id: UUID,  # noqa: ARG002
        parent_run_id: UUID | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Note the answer and its usage."""
        first = response.generations[0][0] if response.generations[0] else None
        if isinstance(first, ChatGeneration) and isinstance(first.message, AIMessage):
            self.message = first.message
            if first.message.usage_metadata is not None:
                self.usage = add_usage(self.usage, first.message.usage_metadata)


class Request:
    """One call of a routed model, from its arguments to its answer.

    Parameters
    ----------
    model
        Who was called.
    given
        With what: a text, messages, or a prompt.
    stop
        Stop words of this call.
    kwargs
        Its other arguments.

    Attributes
    ----------
    prompt, messages
        What was asked, in two forms.
    watch
        Hears the LLM run of the attempt under way, if the answer is parsed.
    """

    __slots__ = (
        "_arguments",
        "_binding",
        "_call",
        "_model",
        "messages",
        "prompt",
        "watch",
    )

    def __init__(
        self,
        model: "ModelPool",
        given: LanguageModelInput,
        stop: list[str] | None,
        kwargs: dict[str, Any],
    ) -> None:
        self._model = model
        self._binding: Binding | None = kwargs.pop(BINDING, None)
        if stop is not None:
            kwargs["stop"] = stop
        self._arguments = kwargs
        self._call: RoutedCall | None = None
        self.watch: UsageWatch | None = None
        self.prompt = model._convert_input(given)  # noqa: SLF001 - as every model
        self.messages: list[BaseMessage] = self.prompt.to_messages()

    @property
    def call(self) -> RoutedCall:
        """The routed call; `begin` makes it."""
        if self._call is None:
            raise RuntimeError("the request has not begun")
        return self._call

    def begin(self) -> None:
        """Decide who answers.

        Raises
        ------
        NoCandidateError
            If no candidate is able to.
        """
        model = self._model
        query, input_tokens = self._query()
        worth = self._arguments.pop("willingness_to_pay", model.willingness_to_pay)
        options, among = self._choice()
        self._call = model.dispatcher.begin(
            query,
            input_tokens=input_tokens,
            requires=self._requires(),
            among=among,
            options=options,
            willingness_to_pay=worth,
        )

    def decided(self) -> dict[str, Any]:
        """Return the part of the routing record that is known from the start."""
        decision = self.call.decision
        expected = decision.prediction
        return {
            "decision_id": decision.id,
            "candidate": decision.candidate,
            "predicted_quality": float(expected.quality),
            "predicted_cost": float(expected.cost),
            "willingness_to_pay": float(decision.willingness_to_pay),
        }

    def target(self) -> tuple[Runnable[Any, Any], dict[str, Any], float | None]:
        """Return what is to be called now.

        Returns
        -------
        tuple
            The chosen model with its tools or schema bound, the arguments of
            the call, and how long to wait in seconds.

        Raises
        ------
        Exception
            What the first model raised when it was bound, if none can be.
        """
        while True:
            try:
                chosen, bound = self._bound(self.call.candidate)
                break
            except Exception as error:  # noqa: BLE001 - raised if nobody is left
                if not self.call.decline(error):
                    raise self.call.failure() from None
        if isinstance(self._binding, SchemaBinding):
            self.watch = UsageWatch()
        arguments = self._arguments
        if chosen.arguments:
            arguments = {**chosen.arguments, **arguments}
        return bound, arguments, chosen.timeout_seconds

    def _bound(self, name: str) -> tuple[Seat, Runnable[Any, Any]]:
        chosen = self._model.seat(name)
        if self._binding is None:
            return chosen, chosen.model
        return chosen, self._binding.on(name, chosen.model)

    def failed(self, error: Exception) -> None:
        """Hand the request over to the next candidate.

        Parameters
        ----------
        error
            What the last one raised before it gave any answer.

        Raises
        ------
        Exception
            If nobody is left: the error itself if one candidate was tried,
            else an `ExceptionGroup`.
        """
        if self._has_answered():
            self.succeeded(self.watched())
            raise error
        if not self.call.fail(error):
            raise self.call.failure()

    def broken(self, error: Exception) -> None:
        """Report that an answer broke off, after a part was handed on.

        Parameters
        ----------
        error
            What the candidate raised.
        """
        if self._has_answered():
            self.succeeded(self.watched())
        else:
            self.call.break_off(error)

    def answered(self, answer: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
        """Report an answer that came as a whole.

        Parameters
        ----------
        answer
            A message, or what was parsed from one.

        Returns
        -------
        tuple
            The answer with its routing record on it where there is a place for
            it, and the record.
        """
        if isinstance(answer, AIMessage):
            record = self.succeeded(spent_on(answer.usage_metadata, answer))
            return with_record(answer, record), record
        record = self.succeeded(self.watched())
        raw = answer.get("raw") if isinstance(answer, dict) else None
        if isinstance(raw, BaseMessage) and self.returns_raw:
            answer = {**answer, "raw": with_record(raw, record)}
        return answer, record

    def succeeded(self, spent: Spent) -> dict[str, Any]:
        """Report what the answer took.

        Parameters
        ----------
        spent
            Tokens and cost.

        Returns
        -------
        dict
            The routing record.
        """
        asked = spent.input_tokens
        if asked < 0:
            asked = 0 if spent.cached else self.call.decision.input_tokens
        return self.call.succeed(
            input_tokens=asked,
            output_tokens=spent.output_tokens,
            cost=spent.cost,
            cached=spent.cached,
        )

    def watched(self) -> Spent:
        """Return what the watched LLM run used."""
        if self.watch is None:
            return Spent(-1, 0)
        return spent_on(self.watch.usage, self.watch.message)

    @property
    def returns_raw(self) -> bool:
        """Whether the answer is a dict with the message under ``"raw"``."""
        binding = self._binding
        return isinstance(binding, SchemaBinding) and binding.include_raw

    def release(self) -> None:
        """Stop counting as load, whatever has happened; for ``finally``."""
        if self._call is not None:
            self._call.abandon()

    def _has_answered(self) -> bool:
        """Tell whether only the parsing failed: a matter of quality, not of load."""
        return self.watch is not None and self.watch.message is not None

    def _query(self) -> tuple[str, int | None]:
        messages, chosen_text = self.messages, self._model.query_from
        if chosen_text is None and len(messages) == 1:
            content = messages[0].content
            if isinstance(content, str):
                return content, None
        turns = turns_of(messages)
        tokens = conversation_tokens(turns)
        if chosen_text is None:
            return routed_text(turns), tokens
        if tokens is None:
            tokens = sum(text_tokens(text) for _, text in turns)
        query = chosen_text(messages)
        if not isinstance(query, str):
            raise ConfigurationError(
                "query_from must return the text to route as a str, not a "
                f"{type(query).__name__}"
            )
        return query, tokens

    def _requires(self) -> tuple[Requirement, ...]:
        needed = self._binding.requires if self._binding is not None else ()
        if self._arguments.get("tools") and "tools" not in needed:
            needed = (*needed, "tools")
        return (*needed, "vision") if with_vision(self.messages) else needed

    def _choice(self) -> tuple[CallOptions, tuple[str, ...] | None]:
        """Return what the caller asks of the choice, and who may be chosen."""
        model, forced, among = self._model, None, self._model.among()
        meant = model.meant_by(self._arguments.get("model"))
        if meant:
            self._arguments.pop("model")
            if len(meant) == 1:
                forced = meant[0]
            else:  # several that share a model: the best of these
                among = meant if among is None else tuple(set(among) & set(meant))
        loop, limit = loop_candidate(self.messages), model.max_retries
        if forced is None and loop is None and limit is None:
            return _ANY, among
        options = CallOptions(candidate=forced, prefer=loop, max_failovers=limit)
        return options, among


_ANY = CallOptions()
