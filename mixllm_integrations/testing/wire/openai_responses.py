"""OpenAI's Responses."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from mixllm_integrations.testing.wire.openai_chat import OpenAIErrors, response_schema
from mixllm_integrations.testing.wire.openai_checks import (
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
from mixllm_integrations.testing.wire.responses_checks import check_items

__all__ = ["OpenAIResponses"]

# Two events of one item, as functions of its number in the output.
_Tell = Callable[..., Event]


class OpenAIResponses(OpenAIErrors):
    """Requests and answers of ``POST /v1/responses``."""

    def read(self, body: Body, *, strict_keys: bool) -> Ask:
        """Return what a request asks for; see `WireProtocol.read`."""
        given = body.get("input")
        items = (
            [{"role": "user", "content": given}] if isinstance(given, str) else given
        )
        check_items(items, strict_keys=strict_keys)
        items = cast("list[dict[str, Any]]", items)
        tools = check_tools(body.get("tools"), strict_keys=strict_keys)
        choice, tool = check_tool_choice(body.get("tool_choice"), tools)
        texts = [text_of(item.get("content") or item.get("output")) for item in items]
        told = f"{body.get('instructions') or ''} {' '.join(texts)}"
        form = (body.get("text") or {}).get("format")
        wants_json, schema = response_schema(form, told, "input")
        return Ask(
            prompt=texts[-1],
            words=len(told.split()),
            after_tool=items[-1].get("type") == "function_call_output",
            tools=tools,
            choice=cast("Any", choice),
            tool=tool,
            wants_json=wants_json,
            schema=schema,
            max_tokens=body.get("max_output_tokens"),
        )

    def whole(self, answer: Answer) -> dict[str, Any]:
        """Return an answer as a whole; see `WireProtocol.whole`."""
        short = answer.ended == "length"
        return {
            **_head(answer),
            "status": "incomplete" if short else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if short else None,
            "output": _items(answer),
            "usage": _usage(answer.usage),
        }

    def events(self, answer: Answer) -> Iterator[Event]:
        """Yield an answer in events; see `WireProtocol.events`."""
        count = itertools.count()

        def tell(kind: str, **data: object) -> Event:
            return kind, {"type": kind, "sequence_number": next(count), **data}

        begun = {**_head(answer), "status": "in_progress", "output": [], "usage": None}
        yield tell("response.created", response=begun)
        yield tell("response.in_progress", response=begun)
        for index, item in enumerate(_items(answer)):
            yield from _ITEM_EVENTS[item["type"]](tell, item, index, answer)
            yield tell("response.output_item.done", output_index=index, item=item)
        whole = self.whole(answer)
        yield tell(f"response.{whole['status']}", response=whole)

    def broken(self, refusal: Refusal, number: int) -> Event:
        """Return an error in mid-stream; see `WireProtocol.broken`."""
        error = self.refused(refusal, number)["error"]
        return "error", {**error, "type": "error", "sequence_number": 0}


def _head(answer: Answer) -> dict[str, Any]:
    body = answer.body
    return {
        "id": f"resp_{answer.number:024d}",
        "object": "response",
        "created_at": int(time.time()),
        "model": answer.model,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": body.get("temperature", 1.0),
        "top_p": body.get("top_p", 1.0),
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "text": body.get("text") or {"format": {"type": "text"}},
        "service_tier": "default",
    }


def _items(answer: Answer) -> list[dict[str, Any]]:
    items = []
    if answer.reasoning:
        items.append(_reasoning(answer))
    if answer.text or not answer.calls:
        text = {
            "type": "output_text",
            "text": answer.text,
            "annotations": [],
            "logprobs": [],
        }
        items.append(
            {
                "type": "message",
                "id": f"msg_{answer.number:024d}",
                "status": "incomplete" if answer.ended == "length" else "completed",
                "role": "assistant",
                "content": [text],
            }
        )
    for index, call in enumerate(answer.calls):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{answer.number:020d}{index:02d}",
                "call_id": answer.call_id(index, "call_"),
                "name": call.name,
                "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
                "status": "completed",
            }
        )
    return items


def _reasoning(answer: Answer) -> dict[str, Any]:
    """Return the reasoning: its summary or its sealed text only where asked for."""
    asked = answer.body.get("reasoning") or {}
    shown = asked.get("summary") or asked.get("generate_summary")
    summary = [{"type": "summary_text", "text": answer.reasoning}] if shown else []
    item = {"type": "reasoning", "id": f"rs_{answer.number:024d}", "summary": summary}
    if "reasoning.encrypted_content" in (answer.body.get("include") or ()):
        item["encrypted_content"] = f"sealed-{answer.number}"
    return item


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _message_events(
    tell: _Tell, item: dict[str, Any], index: int, answer: Answer
) -> Iterator[Event]:
    begun = {**item, "status": "in_progress", "content": []}
    yield tell("response.output_item.added", output_index=index, item=begun)
    at = {"item_id": item["id"], "output_index": index, "content_index": 0}
    (part,) = item["content"]
    yield tell("response.content_part.added", **at, part={**part, "text": ""})
    for piece in answer.pieces():
        yield tell("response.output_text.delta", **at, delta=piece, logprobs=[])
    yield tell("response.output_text.done", **at, text=part["text"], logprobs=[])
    yield tell("response.content_part.done", **at, part=part)


def _call_events(
    tell: _Tell,
    item: dict[str, Any],
    index: int,
    answer: Answer,  # noqa: ARG001 - as for every kind of item
) -> Iterator[Event]:
    begun = {**item, "status": "in_progress", "arguments": ""}
    yield tell("response.output_item.added", output_index=index, item=begun)
    at = {"item_id": item["id"], "output_index": index}
    written = item["arguments"]
    half = len(written) // 2
    for part in (written[:half], written[half:]):
        yield tell("response.function_call_arguments.delta", **at, delta=part)
    yield tell(
        "response.function_call_arguments.done",
        **at,
        name=item["name"],
        arguments=written,
    )


def _reasoning_events(
    tell: _Tell,
    item: dict[str, Any],
    index: int,
    answer: Answer,  # noqa: ARG001 - as for every kind of item
) -> Iterator[Event]:
    begun = {**item, "summary": []}
    yield tell("response.output_item.added", output_index=index, item=begun)
    for number, part in enumerate(item["summary"]):
        at = {"item_id": item["id"], "output_index": index, "summary_index": number}
        kind = "response.reasoning_summary"
        yield tell(f"{kind}_part.added", **at, part={**part, "text": ""})
        yield tell(f"{kind}_text.delta", **at, delta=part["text"])
        yield tell(f"{kind}_text.done", **at, text=part["text"])
        yield tell(f"{kind}_part.done", **at, part=part)


_ITEM_EVENTS = {
    "message": _message_events,
    "function_call": _call_events,
    "reasoning": _reasoning_events,
}
