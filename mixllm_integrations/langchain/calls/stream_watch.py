"""Hears what becomes of an event stream that the caller drives."""

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AIMessage

from mixllm_integrations.langchain.calls.messages import spent_on
from mixllm_integrations.langchain.calls.request import Request
from mixllm_integrations.langchain.tracing.runs import AsyncChainRun, ChainRun
from mixllm_integrations.serving import RECORD_KEY

__all__ = ["ERROR_EVENT", "AsyncStreamWatch", "Message", "StreamWatch"]

#: The event that stands for an exception of the model's.
ERROR_EVENT = "error"
_LAST_EVENT = "message-finish"


class Message(Protocol):
    """A stream, as far as it makes a message."""

    @property
    def output_message(self) -> AIMessage | None:
        """What was said, once it is complete."""


class _Watch:
    """Puts the record on the message before anybody can take it.

    It follows the run whose events it heard last before the stream was handed
    out. Failed attempts of a router inside this one are heard too, even later.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._answer: tuple[AIMessage | None, dict[str, Any]] | None = None
        # Weak, so that it dies when the caller drops it.
        self._stream: weakref.ref[Message] | None = None
        self._finalizer: weakref.finalize[..., Message] | None = None
        self._run_id: UUID | None = None
        self._ended = False
        self._error: BaseException | None = None

    def dropped(self) -> None:
        """Release the load of a stream that went before its end was heard."""
        self._request.release()

    def _begun(self, stream: Message) -> bool:
        """Answer for a stream from now on; return whether it is over already."""
        self._request.call.first_chunk()
        self._stream = weakref.ref(stream)
        self._finalizer = weakref.finalize(stream, _apart, self.dropped)
        self._finalizer.atexit = False
        if stream.output_message is not None:
            self._finished(outermost=True)
        return self._ended

    def _heard(self, event: Mapping[str, Any], run_id: UUID) -> bool:
        """Note an event; return whether the run is to end for it."""
        if self._stream is None and run_id != self._run_id:
            self._run_id, self._ended, self._error = run_id, False, None
        kind = event.get("event")
        if kind == ERROR_EVENT:  # no other callback tells of it
            error = RuntimeError(event.get("message", "Unknown error"))
            return self._over(run_id, error)
        if kind == _LAST_EVENT and self._follows(run_id):
            self._finished()  # the message is ready
        return False

    def _over(self, run_id: UUID, error: BaseException | None = None) -> bool:
        """Note the end; return whether the run is to end for it."""
        if self._ended or run_id != self._run_id:
            return False
        self._ended = True
        self._error = error
        return self._stream is not None

    def _follows(self, run_id: UUID) -> bool:
        return self._stream is not None and run_id == self._run_id

    def _finished(
        self, *, outermost: bool = False
    ) -> tuple[AIMessage | None, dict[str, Any]]:
        """Report the answer, once, and return it with its record.

        Of routers inside routers the outermost hears an event first, but takes
        over a stream last. Its record is the one that is kept.
        """
        if self._answer is None:
            stream = None if self._stream is None else self._stream()
            message = None if stream is None else stream.output_message
            usage = None if message is None else message.usage_metadata
            record = self._request.succeeded(spent_on(usage, message))
            known = getattr(message, "response_metadata", None)
            known = known if isinstance(known, Mapping) else {}
            if message is not None and (outermost or RECORD_KEY not in known):
                message.response_metadata = {**known, RECORD_KEY: record}
            self._answer = message, record
        return self._answer

    def _settled(self) -> tuple[AIMessage | None, dict[str, Any]] | None:
        """Report how it ended; return the answer and its record, if there is one."""
        if self._finalizer is not None:
            self._finalizer.detach()
        if self._error is None:
            return self._finished()
        if isinstance(self._error, Exception):
            self._request.call.break_off(self._error)
        self._request.release()
        return None


class StreamWatch(_Watch, BaseCallbackHandler):
    """Hears the LLM run of a synchronous stream.

    Parameters
    ----------
    request
        What is being answered.
    run
        The run around it; it ends when the stream does.
    """

    run_inline = True

    def __init__(self, request: Request, run: ChainRun) -> None:
        super().__init__(request)
        self._run = run

    def begin(self, stream: Message) -> None:
        """Take over the request, now that the answer has begun.

        Parameters
        ----------
        stream
            What is handed out.
        """
        self._run.span.saw(stream)
        if self._begun(stream):
            self._end()

    def give_up(self) -> None:
        """Make an answer that comes late fail, which ends its run."""
        self.raise_error = True

    def dropped(self) -> None:
        """Release the load, and end the run."""
        super().dropped()
        self._run.fail(GeneratorExit())

    def on_stream_event(
        self,
        event: Any,  # noqa: ANN401
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,  # noqa: ARG002
        tags: list[str] | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Report the answer at its last event."""
        if self.raise_error:
            raise TimeoutError("it came too late: another candidate was asked")
        if self._heard(event, run_id):
            self._end()

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Report the answer, if no event told its end, and end the run."""
        if self._over(run_id):
            self._end()

    def on_llm_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Report the failure."""
        if self._over(run_id, error):
            self._end()

    def _end(self) -> None:
        told = self._settled()
        if told is not None:
            self._run.end(*told)
        elif self._error is not None:
            self._run.fail(self._error)


class AsyncStreamWatch(_Watch, AsyncCallbackHandler):
    """Hears the LLM run of an asynchronous stream.

    Parameters
    ----------
    request
        What is being answered.
    run
        The run around it; it ends when the stream does.
    """

    run_inline = True

    def __init__(self, request: Request, run: AsyncChainRun) -> None:
        super().__init__(request)
        self._run = run

    async def begin(self, stream: Message) -> None:
        """Take over the request, now that the answer has begun.

        Parameters
        ----------
        stream
            What is handed out.
        """
        self._run.span.saw(stream)
        if self._begun(stream):
            await self._end()

    async def on_stream_event(
        self,
        event: Any,  # noqa: ANN401
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,  # noqa: ARG002
        tags: list[str] | None = None,  # noqa: ARG002
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Report the answer at its last event."""
        if self._heard(event, run_id):
            await self._end()

    async def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Report the answer, if no event told its end, and end the run."""
        if self._over(run_id):
            await self._end()

    async def on_llm_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        **kwargs: Any,  # noqa: ANN401, ARG002
    ) -> None:
        """Report the failure."""
        if self._over(run_id, error):
            await self._end()

    async def _end(self) -> None:
        told = self._settled()
        if told is not None:
            await self._run.end(*told)
        elif self._error is not None:
            await self._run.fail(self._error)


def _apart(function: Callable[[], object]) -> None:
    """Call a function on a thread of its own.

    The garbage collector drops streams, in the midst of anything: whoever holds
    a lock that the function takes would wait for himself.
    """
    threading.Thread(target=function, name="mixllm-dropped", daemon=True).start()
