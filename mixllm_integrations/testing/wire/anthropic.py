"""Anthropic's Messages."""

import itertools
import json
from collections.abc import Iterator
from typing import Any, cast

from mixllm_integrations.testing.wire.anthropic_checks import (
    check_messages,
    check_request,
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
    words_of,
)
from mixllm_integrations.testing.wire.protocol import Event

__all__ = ["AnthropicMessages"]

_ENDED = {
    "done": "end_turn",
    "stop_word": "stop_sequence",
    "length": "max_tokens",
    "tools": "tool_use",
}
# Status: what it is called, what is said.
_ERRORS = {
    400: ("invalid_request_error", "Bad request."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low."),
    403: ("permission_error", "You have no access to this model."),
    404: ("not_found_error", "The model was not found."),
    413: ("request_too_large", "Request exceeds the maximum size."),
    429: ("rate_limit_error", "This request would exceed your rate limit."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "Request timed out."),
    529: ("overloaded_error", "Overloaded"),
}


class AnthropicMessages:
    """Requests and answers of ``POST /v1/messages``."""

    def read(self, body: Body, *, strict_keys: bool) -> Ask:
        """Return what a request asks for; see `WireProtocol.read`."""
        tools = check_tools(body.get("tools"))
        choice, tool = check_tool_choice(body.get("tool_choice"), tools)
        check_request(body, forced=choice in ("any", "tool"))
        check_messages(body.get("messages"), body, strict_keys=strict_keys)
        messages = cast("list[dict[str, Any]]", body["messages"])
        texts = [text_of(message["content"]) for message in messages]
        words = " ".join([text_of(body.get("system")), *texts]).split()
        form = _format(body)
        return Ask(
            prompt=texts[-1],
            words=len(words),
            after_tool=_answers_tool(messages[-1]["content"]),
            tools=tools,
            choice=cast("Any", choice),
            tool=tool,
            wants_json=form is not None,
            schema=None if form is None else form.get("schema"),
            stop=tuple(body.get("stop_sequences") or ()),
            max_tokens=body["max_tokens"],
        )

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return an answer as a whole; see `WireProtocol.whole`."""
        return {
            "id": f"msg_{answer.number:024d}",
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": _blocks(answer),
            "stop_reason": _ENDED[answer.ended],
            "stop_sequence": answer.stop_word,
            "usage": _usage(answer.usage),
        }

    def events(self, answer: Answer) -> Iterator[Event]:
        """Yield an answer in events; see `WireProtocol.events`."""
        whole = self.whole(answer)
        usage = whole["usage"]
        begun = {
            **whole,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**usage, "output_tokens": 1},
        }
        yield _event("message_start", message=begun)
        for index, block in enumerate(whole["content"]):
            empty = {**block, **_EMPTY[block["type"]]}
            yield _event("content_block_start", index=index, content_block=empty)
            if index == 0:
                yield _event("ping")
            for delta in _deltas(block):
                yield _event("content_block_delta", index=index, delta=delta)
            yield _event("content_block_stop", index=index)
        ended = {k: whole[k] for k in ("stop_reason", "stop_sequence")}
        yield _event("message_delta", delta=ended, usage=usage)
        yield _event("message_stop")

    def refused(self, refusal: Refusal, number: int) -> dict[str, Any]:
        """Return an error as Anthropic tells it; see `WireProtocol.refused`."""
        nearest = 400 if refusal.status < 500 else 500
        kind, said = _ERRORS.get(refusal.status, _ERRORS[nearest])
        message = said if refusal.message is None else refusal.message
        return {
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": f"req_{number:024d}",
        }

    def broken(self, refusal: Refusal, number: int) -> Event:
        """Return an error in mid-stream; see `WireProtocol.broken`."""
        return "error", self.refused(refusal, number)

    def too_long(self, words: int, window: int) -> Refusal:
        """Return how a long prompt is refused; see `WireProtocol.too_long`."""
        return Refusal(f"prompt is too long: {words} tokens > {window} maximum")


def _format(body: Body) -> Body | None:
    return (body.get("output_config") or {}).get("format") or body.get("output_format")


def _answers_tool(content: object) -> bool:
    blocks = content if isinstance(content, list) else []
    return any(block.get("type") == "tool_result" for block in blocks)


def _blocks(answer: Answer) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    thinking = (answer.body.get("thinking") or {}).get("type")
    if answer.reasoning and thinking in ("enabled", "adaptive"):
        signature = f"signed-{answer.number}"
        blocks.append(
            {
                "type": "thinking",
                "thinking": answer.reasoning,
                "signature": signature,
            }
        )
    if answer.text:
        blocks.append({"type": "text", "text": answer.text})
    for index, call in enumerate(answer.calls):
        blocks.append(
            {
                "type": "tool_use",
                "id": answer.call_id(index, "toolu_"),
                "name": call.name,
                "input": dict(call.arguments),
            }
        )
    return blocks


_EMPTY: dict[str, dict[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}


def _deltas(block: Body) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        for piece in words_of(block["text"]):
            yield {"type": "text_delta", "text": piece}
    elif block["type"] == "thinking":
        for piece in words_of(block["thinking"]):
            yield {"type": "thinking_delta", "thinking": piece}
        yield {"type": "signature_delta", "signature": block["signature"]}
    else:
        written = json.dumps(block["input"], ensure_ascii=False)
        cuts = (0, len(written) // 2, len(written))
        for start, end in itertools.pairwise(cuts):
            yield {"type": "input_json_delta", "partial_json": written[start:end]}


def _usage(usage: Usage) -> dict[str, Any]:
    """Return the usage; here tokens out of a cache are counted apart."""
    told: dict[str, Any] = {
        "input_tokens": usage.input_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "service_tier": "standard",
    }
    if usage.reasoning_tokens:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return told


def _event(kind: str, **data: object) -> Event:
    return kind, {"type": kind, **data}
