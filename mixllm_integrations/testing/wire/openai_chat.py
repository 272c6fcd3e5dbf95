"""OpenAI's Chat Completions."""

import json
import time
from collections.abc import Iterator
from typing import Any, cast

from mixllm_integrations.testing.wire.openai_checks import (
    check_chat_messages,
    check_strict,
    check_tool_choice,
    check_tools,
)
from mixllm_integrations.testing.wire.parts import (
    Answer,
    Ask,
    Body,
    Refusal,
    Usage,
    text_of,
)
from mixllm_integrations.testing.wire.protocol import Event

__all__ = ["OpenAIChat", "OpenAIErrors", "response_schema"]

_ENDED = {
    "done": "stop",
    "stop_word": "stop",
    "length": "length",
    "tools": "tool_calls",
}
# Status: what it is called, its code, what is said.
_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "Bad request."),
    401: (
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided.",
    ),
    403: ("invalid_request_error", "forbidden", "You have no access to this model."),
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: (
        "server_error",
        None,
        "The server had an error while processing your request.",
    ),
    503: (
        "server_error",
        None,
        "The engine is currently overloaded, please try again later.",
    ),
}


class OpenAIErrors:
    """Errors in OpenAI's shape."""

    def refused(self, refusal: Refusal, number: int) -> dict[str, Any]:
        """Return an error as OpenAI tells it; see `WireProtocol.refused`."""
        nearest = 400 if refusal.status < 500 else 500
        kind, code, said = _ERRORS.get(refusal.status, _ERRORS[nearest])
        return {
            "error": {
                "message": said if refusal.message is None else refusal.message,
                "type": kind,
                "param": refusal.param,
                "code": refusal.code or code,
            },
            "request_id": f"req_{number:024d}",
        }

    def too_long(self, words: int, window: int) -> Refusal:
        """Return how a long prompt is refused; see `WireProtocol.too_long`."""
        return Refusal(
            f"This model's maximum context length is {window} tokens. However, your "
            f"messages resulted in {words} tokens. Please reduce the length of the "
            "messages.",
            param="messages",
            code="context_length_exceeded",
        )


class OpenAIChat(OpenAIErrors):
    """Requests and answers of ``POST /v1/chat/completions``."""

    def read(self, body: Body, *, strict_keys: bool) -> Ask:
        """Return what a request asks for; see `WireProtocol.read`."""
        messages = body.get("messages")
        check_chat_messages(messages, strict_keys=strict_keys)
        messages = cast("list[dict[str, Any]]", messages)
        tools = check_tools(body.get("tools"), strict_keys=strict_keys)
        choice, tool = check_tool_choice(body.get("tool_choice"), tools)
        texts = [text_of(message.get("content")) for message in messages]
        wants_json, schema = response_schema(
            _format(body.get("response_format")), " ".join(texts), "messages"
        )
        stop = body.get("stop") or ()
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        return Ask(
            prompt=texts[-1],
            words=sum(len(text.split()) for text in texts),
            after_tool=messages[-1]["role"] == "tool",
            tools=tools,
            choice=cast("Any", choice),
            tool=tool,
            wants_json=wants_json,
            schema=schema,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            max_tokens=limit,
        )

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return an answer as a whole; see `WireProtocol.whole`."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer.text if answer.text or not answer.calls else None,
            "refusal": None,
            "annotations": [],
        }
        if answer.calls:
            message["tool_calls"] = [
                _call(answer, index) for index in range(len(answer.calls))
            ]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _ENDED[answer.ended],
        }
        return {
            **_head(answer, "chat.completion"),
            "choices": [choice],
            "usage": _usage(answer.usage),
        }

    def events(self, answer: Answer) -> Iterator[Event]:
        """Yield an answer in chunks; see `WireProtocol.events`."""
        head = _head(answer, "chat.completion.chunk")
        told = (answer.body.get("stream_options") or {}).get("include_usage")
        usage: dict[str, Any] = {"usage": None} if told else {}
        for delta, ended in _deltas(answer):
            choice = {
                "index": 0,
                "delta": delta,
                "logprobs": None,
                "finish_reason": ended,
            }
            yield None, {**head, "choices": [choice], **usage}
        if told:
            yield None, {**head, "choices": [], "usage": _usage(answer.usage)}
        yield None, "[DONE]"

    def broken(self, refusal: Refusal, number: int) -> Event:
        """Return an error in mid-stream; see `WireProtocol.broken`."""
        return None, self.refused(refusal, number)


def response_schema(
    form: Body | None, text: str, where: str
) -> tuple[bool, Body | None]:
    """Return whether an answer must be JSON, and which.

    Parameters
    ----------
    form
        Its `type`, and with ``"json_schema"`` its `name`, `schema` and `strict`.
    text
        All that is said in the conversation.
    where
        The conversation's name in the request.

    Returns
    -------
    tuple
        Whether, and the schema; ``None``: any object.

    Raises
    ------
    Refusal
        If the schema cannot be kept, or JSON is asked for without the word.
    """
    kind = None if form is None else form.get("type")
    if form is None or kind == "text":
        return False, None
    if kind == "json_object":
        if "json" not in text.lower():
            raise Refusal(
                f"'{where}' must contain the word 'json' in some form, to use "
                "'response_format' of type 'json_object'.",
                param=where,
            )
        return True, None
    schema = form.get("schema")
    if kind != "json_schema" or not isinstance(schema, dict) or not form.get("name"):
        raise Refusal(
            "Missing required parameter: 'response_format.json_schema'.",
            param="response_format.json_schema",
            code="missing_required_parameter",
        )
    if form.get("strict"):
        whose = f"response_format '{form['name']}'"
        check_strict(schema, whose, param="response_format")
    return True, schema


def _format(given: Body | None) -> Body | None:
    """Return a response format without the nesting that only this protocol has."""
    if given is None or given.get("type") != "json_schema":
        return given
    return {**(given.get("json_schema") or {}), "type": "json_schema"}


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.number:024d}",
        "object": kind,
        "created": int(time.time()),
        "model": answer.model,
        "service_tier": "default",
        "system_fingerprint": "fp_loopback",
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
        },
    }


def _call(answer: Answer, index: int) -> dict[str, Any]:
    call = answer.calls[index]
    return {
        "id": answer.call_id(index, "call_"),
        "type": "function",
        "function": {
            "name": call.name,
            "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
        },
    }


def _deltas(answer: Answer) -> Iterator[tuple[dict[str, Any], str | None]]:
    yield {"role": "assistant", "content": "", "refusal": None}, None
    for piece in answer.pieces():
        yield {"content": piece}, None
    for index in range(len(answer.calls)):
        call = _call(answer, index)
        written = call["function"]["arguments"]
        half = len(written) // 2
        begun = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{**call, "index": index, "function": begun}]}, None
        for part in (written[:half], written[half:]):
            more = {"index": index, "function": {"arguments": part}}
            yield {"tool_calls": [more]}, None
    yield {}, _ENDED[answer.ended]
