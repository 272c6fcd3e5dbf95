"""Hears what the chosen LLM answers where its own method returns something else.

A structured prediction returns an object, without the answer that it was parsed from.
LlamaIndex tells its instrumentation of that answer, and we listen to it there. The
instrumentation also learns who was chosen: its tags are on every span and event of
the chosen LLM.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMCompletionEndEvent,
)
from llama_index.core.instrumentation.span import active_span_id
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags

from mixllm_integrations.serving import RoutedCall

__all__ = ["DECISION_TAG", "Heard", "inside"]

#: Under which tags the instrumentation has the decision and the candidate.
DECISION_TAG, CANDIDATE_TAG = "mixllm.decision_id", "mixllm.candidate"

#: What an LLM has answered meanwhile.
Heard = list[ChatResponse | CompletionResponse]

_HEARD: ContextVar[Heard | None] = ContextVar("mixllm_heard", default=None)


class _Listener(BaseEventHandler):
    """Keeps the answers of LLMs for those of our calls that wait for one."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex knows it."""
        return "MixLLMListener"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Keep an answer if somebody waits for it."""
        heard = _HEARD.get()
        if heard is None or not isinstance(
            event, LLMChatEndEvent | LLMCompletionEndEvent
        ):
            return
        if event.response is not None:
            heard.append(event.response)


# Only where LLMs tell of their answers; other events never pass here.
get_dispatcher("llama_index.core.llms.callbacks").add_event_handler(_Listener())


@contextmanager
def inside(
    call: RoutedCall, span_id: str | None, heard: Heard | None
) -> Iterator[None]:
    """Let what the chosen LLM tells be a part of the routed call.

    Parameters
    ----------
    call
        Which call.
    span_id
        Its span: a stream's has ended when its chunks are asked for.
    heard
        Where its answers are kept; ``None``: nowhere.

    Yields
    ------
    None
        For the time in which the LLM is asked, or its next chunk is.
    """
    tags = {
        **active_instrument_tags.get(),
        DECISION_TAG: call.decision.id,
        CANDIDATE_TAG: call.candidate,
    }
    told = active_instrument_tags.set(tags)
    span = active_span_id.set(span_id)
    hears = _HEARD.set(heard)
    try:
        yield
    finally:
        _HEARD.reset(hears)
        active_span_id.reset(span)
        active_instrument_tags.reset(told)
