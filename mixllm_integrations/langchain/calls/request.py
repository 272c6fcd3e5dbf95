"""One call of the model: who is asked, what comes back, what is reported.

Everything here is free of waiting, so the synchronous and the asynchronous
methods of the model share it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from mixllm_integrations.langchain.binding import BINDING, Binding, SchemaBinding
from mixllm_integrations.langchain.calls.control import wish_of
from mixllm_integrations.langchain.calls.messages import (
    Spent,
    query_of,
    spent_on,
    with_record,
)
from mixllm_integrations.langchain.calls.signals import (
    lacks_its_end,
    refused_call,
    signals_of,
)
from mixllm_integrations.langchain.calls.usage_watch import UsageWatch
from mixllm_integrations.langchain.candidates.needs import needs_of
from mixllm_integrations.langchain.candidates.seats import Seat, Target
from mixllm_integrations.langchain.history import adapted
from mixllm_integrations.serving import CacheUse, RoutedCall
from mixllm_integrations.serving.errors import (
    answered_badly,
    is_from_callback,
    usage_of_error,
)

if TYPE_CHECKING:
    from mixllm_integrations.langchain.pool import ModelPool

__all__ = ["Request"]

_MANY_MESSAGES = 500  # to read them all takes longer than a loop should wait


def _nobody(decision_id: str) -> None:
    """Hear of a decision, and do nothing."""


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
    config
        Its config, complete.

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
        "_config",
        "_model",
        "_schema",
        "follow",
        "messages",
        "prompt",
        "record",
        "seen",
        "spent",
        "watch",
    )

    def __init__(
        self,
        model: "ModelPool",
        given: LanguageModelInput,
        stop: list[str] | None,
        kwargs: dict[str, Any],
        config: RunnableConfig,
    ) -> None:
        self._model = model
        self._config = config
        binding: Binding | None = kwargs.pop(BINDING, None)
        self._binding = binding
        self._schema = binding if isinstance(binding, SchemaBinding) else None
        if stop is not None:
            kwargs["stop"] = stop
        self._arguments = kwargs
        self._call: RoutedCall | None = None
        self.watch: UsageWatch | None = None
        self.spent: Spent | None = None
        self.record: dict[str, Any] | None = None
        #: Told which decision is in force after each change of it.
        self.follow: Callable[[str], None] = _nobody
        #: The record as those see it who listen.
        self.seen: dict[str, Any] = {}
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
        query, input_tokens = query_of(self.messages, model.query_from)
        needs = needs_of(self.messages, self._binding, self._arguments)
        wish = wish_of(model, self.messages, self._arguments, self._config, needs)
        refused = refused_call(self.messages)
        if refused is not None and not wish.options.dry_run:
            model.dispatcher.tell(refused, "tool_error")
        self._call = model.dispatcher.begin(
            query,
            input_tokens=input_tokens,
            requires=wish.requires,
            among=wish.among,
            options=wish.options,
            form="" if self._schema is None else self._schema.name,
        )

    @property
    def is_slow(self) -> bool:
        """Whether deciding may take longer than an event loop should wait."""
        return self._model.decides_slowly or len(self.messages) > _MANY_MESSAGES

    def dry_answer(self) -> Any:  # noqa: ANN401
        """Return what stands for the answer of a call that only decides.

        Returns
        -------
        object
            ``None`` if somebody is to be asked. Else a message that explains the
            decision, where raw messages are returned together with what was
            parsed as that.
        """
        if not self.call.is_dry:
            return None
        told = AIMessage(self.call.decision.explain())
        if self.returns_raw:
            return {"raw": told, "parsed": None, "parsing_error": None}
        return told

    def decided(self) -> dict[str, Any]:
        """Return the part of the routing record that is known from the start."""
        record = self.call.record()
        for unknown in ("cost", "attempts"):
            del record[unknown]
        scores = self.call.decision.scores
        record["predicted_costs"] = {name: scores[name].cost for name in scores}
        return record

    def target(self) -> Target | Exception:
        """Return what is to be called now.

        Returns
        -------
        Target or Exception
            What binding the tools or the schema raised, for `declined`.
        """
        try:
            chosen, bound = self._bound(self.call.candidate)
        except Exception as error:  # noqa: BLE001 - raised if nobody is left
            return error
        if self._schema is not None:
            self.watch = UsageWatch()
        arguments = self._arguments
        if chosen.arguments:
            arguments = {**chosen.arguments, **arguments}
        return Target(
            bound, self._prompt_for(chosen), arguments, chosen.timeout_seconds
        )

    def _prompt_for(self, chosen: Seat) -> LanguageModelInput:
        """Return the prompt as the chosen candidate can read it."""
        if len(self.messages) == 1 and type(self.messages[0].content) is str:
            return self.prompt
        messages = adapted(
            self.messages,
            provider=chosen.provider,
            providers=self._model.seating.providers,
            candidate=self.call.candidate,
        )
        return self.prompt if messages is self.messages else messages

    def _bound(self, name: str) -> tuple[Seat, Runnable[Any, Any]]:
        chosen = self._model.seat(name)
        if self._binding is None:
            return chosen, chosen.model
        return chosen, self._binding.on(name, chosen.model)

    def failed(self, error: Exception) -> float | None:
        """Hand the request over to the next candidate.

        Parameters
        ----------
        error
            What the last one raised before it gave any answer.

        Returns
        -------
        float or None
            Seconds to wait before `resume` is called, if each has failed but
            may be asked once more; ``None``: the next one is to be asked now.

        Raises
        ------
        Exception
            If nobody is left: the error itself if one candidate was tried,
            else an `ExceptionGroup`.
        """
        if self._is_settled(error):
            raise error
        return self._next(goes_on=self.call.fail(error))

    def declined(self, error: Exception) -> float | None:
        """Do what `failed` does, for a candidate that could not even be asked."""
        return self._next(goes_on=self.call.decline(error))

    def _next(self, *, goes_on: bool) -> float | None:
        self.seen.update(self.call.record())
        if goes_on:
            self.follow(self.call.decision.id)
            return None
        if (seconds := self.call.pause()) is None:
            raise self.call.failure()
        return seconds

    def resume(self) -> None:
        """Choose again after a pause; raises what `failed` does."""
        if not self.call.resume():
            raise self.call.failure()
        self.follow(self.call.decision.id)

    def broken(self, error: Exception) -> None:
        """Report that an answer broke off, after a part was handed on.

        Parameters
        ----------
        error
            What the candidate raised.
        """
        if not self._is_settled(error):
            self.call.break_off(error)

    def _is_settled(self, error: Exception) -> bool:
        """Report what an error really was, if it was no failure of the candidate."""
        if is_from_callback(error):  # the caller's own handler insists on it
            self.call.abandon()
        elif self._has_answered():
            self.succeeded(self.watched(), fits=False)
        elif answered_badly(error) or (
            self._schema is not None and self._schema.is_broken_by(error)
        ):  # it has answered, and is paid for
            asked, said = usage_of_error(error) or (-1, 0)
            spent = Spent(asked, said, is_cut_short=lacks_its_end(error))
            self.succeeded(spent, fits=False)
        else:
            return False
        return True

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
        record = self.succeeded(self.watched(), fits=self.fits(answer))
        raw = answer.get("raw") if isinstance(answer, dict) else None
        if isinstance(raw, BaseMessage) and self.returns_raw:
            answer = {**answer, "raw": with_record(raw, record)}
        return answer, record

    def fits(self, answer: object) -> bool:
        """Tell whether what is returned is of the schema, if there is one.

        Parameters
        ----------
        answer
            What was parsed.

        Returns
        -------
        bool
            False if nothing could be parsed.
        """
        return self._schema is None or self._schema.is_filled_by(answer)

    def succeeded(self, spent: Spent, *, fits: bool = True) -> dict[str, Any]:
        """Report what the answer took.

        Parameters
        ----------
        spent
            Tokens and cost.
        fits
            Whether it is of the schema that was asked for.

        Returns
        -------
        dict
            The routing record.
        """
        asked = spent.input_tokens
        if asked < 0:
            asked = 0 if spent.cached else self.call.decision.input_tokens
        self.spent = spent
        self.record = self.call.succeed(
            input_tokens=asked,
            output_tokens=spent.output_tokens,
            cost=spent.cost,
            cached=spent.cached,
            cache=CacheUse(spent.cache_read_tokens, spent.cache_write_tokens),
            signals=signals_of(is_cut_short=spent.is_cut_short, fits=fits),
        )
        used = {"input_tokens": asked, "output_tokens": spent.output_tokens}
        self.seen.update(self.record, **used)
        return self.record

    def watched(self) -> Spent:
        """Return what the watched LLM run used."""
        if self.watch is None:
            return Spent(-1, 0)
        return spent_on(self.watch.usage, self.watch.message)

    @property
    def chosen(self) -> BaseChatModel:
        """The chat model whose turn it is, as it is called."""
        return self._model.seat(self.call.candidate).model

    @property
    def answer(self) -> AIMessage | None:
        """The message that was heard, if what is returned was parsed from it."""
        return None if self.watch is None else self.watch.message

    @property
    def returns_raw(self) -> bool:
        """Whether the answer is a dict with the message under ``"raw"``."""
        return self._schema is not None and self._schema.include_raw

    def release(self) -> None:
        """Stop counting as load, whatever has happened; for ``finally``."""
        if self._call is not None:
            self._call.abandon()

    def _has_answered(self) -> bool:
        """Tell whether only the parsing failed: a matter of quality, not of load."""
        return self.watch is not None and self.watch.message is not None
