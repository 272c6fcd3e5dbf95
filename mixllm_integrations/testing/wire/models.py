"""A model of the loopback server: what it says, and how it misbehaves."""

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.testing.schema import filled
from mixllm_integrations.testing.wire.parts import (
    Answer,
    Ask,
    Body,
    Fault,
    Reply,
    Script,
    ToolCall,
    Usage,
)

__all__ = ["ServedModel"]

_QUOTED = re.compile(r"'(\w+)'|\"(\w+)\"")


class ServedModel:
    """One model of a server; made by `LoopbackServer.model`.

    Parameters
    ----------
    name
        What requests call it.

    Attributes
    ----------
    answers
        What it says: one after the other, from the start again after the last;
        or a function of the request's body. A text gives way to a call or to
        JSON where the request asks for that; a `Reply` is sent as it is.
        ``None``: it repeats the last message, and calls a tool if there is one
        and the last message is not a tool's result.
    usage
        What it reports; ``None``: words are counted.
    context_window
        Tokens of prompt that it takes; a longer one is refused as the provider
        does.
    reported_as
        What its answers say who gave them; ``None``: its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._faults: deque[Fault] = deque()
        self._rule: Callable[[int], Fault | None] = _no_fault
        self.reset()

    def reset(self) -> None:
        """Forget the script, the faults and how often it was asked."""
        self.answers: Script | None = None
        self.usage: Usage | None = None
        self.context_window: int | None = None
        self.reported_as: str | None = None
        self.behave()
        with self._lock:
            self._asked = 0
            self._said = 0

    def fail_with(
        self,
        status: int,
        *,
        headers: Mapping[str, str] | None = None,
        message: str | None = None,
        code: str | None = None,
        times: int | None = 1,
    ) -> None:
        """Answer the next requests with an error, in the provider's own shape.

        Parameters
        ----------
        status
            Of HTTP, 400 to 599.
        headers
            Such as ``{"Retry-After": "2"}``.
        message, code
            What it says; ``None``: what the provider says at that status.
        times
            How many requests; ``None``: until `behave` is called.

        Raises
        ------
        ConfigurationError
            If the status is that of no error, or `times` is not a number.
        """
        self.misbehave(
            Fault(status=status, headers=headers or {}, message=message, code=code),
            times=times,
        )

    def misbehave(
        self,
        fault: Fault | Callable[[int], Fault | None],
        *,
        times: int | None = 1,
    ) -> None:
        """Do wrong at the next requests.

        Parameters
        ----------
        fault
            What goes wrong; several calls wait in line. Or a function of the
            number of the request to this model, from 0: it is asked whenever
            nothing waits in line, until `behave` is called.
        times
            How many requests; ``None``: until `behave` is called. A function
            decides for itself.

        Raises
        ------
        ConfigurationError
            If `times` is not a number above 0.

        Examples
        --------
        >>> from mixllm_integrations.testing.wire import Fault, LoopbackServer
        >>> gpt = LoopbackServer().model("gpt-4o-mini")
        >>> gpt.misbehave(Fault(hang_seconds=5))
        >>> gpt.misbehave(lambda n: Fault(status=503) if n % 10 < 3 else None)
        """
        if times is not None:
            number_between(times, "times", low=1)
        with self._lock:
            if not isinstance(fault, Fault):
                self._rule = fault
            elif times is None:
                self._rule = lambda _: fault
            else:
                self._faults.extend([fault] * int(times))

    def behave(self) -> None:
        """Forget all faults that were to come."""
        with self._lock:
            self._faults.clear()
            self._rule = _no_fault

    def next_fault(self) -> Fault:
        """Return what goes wrong with the request that has just arrived.

        Returns
        -------
        Fault
            An empty one if nothing does.
        """
        with self._lock:
            number = self._asked
            self._asked += 1
            if self._faults:
                return self._faults.popleft()
            rule = self._rule
        return rule(number) or Fault()

    def answer(self, ask: Ask, body: Body, number: int) -> Answer:
        """Return what it says to a request.

        Parameters
        ----------
        ask
            The request as every protocol understands it.
        body
            The request as it came.
        number
            For the ids of the answer.

        Returns
        -------
        Answer
            To be written in the request's protocol.
        """
        reply = self._reply(ask, body)
        text, ended, word = _cut(reply.text, ask)
        calls = tuple(reply.tool_calls)
        return Answer(
            number=number,
            model=self.reported_as or self.name,
            text=text,
            calls=calls,
            reasoning=reply.reasoning,
            ended="tools" if calls else ended,
            stop_word=None if calls else word,
            usage=self.usage or _counted(ask, text, reply),
            body=body,
        )

    def _reply(self, ask: Ask, body: Body) -> Reply:
        said = self._next_said(body)
        if isinstance(said, Reply):
            return said
        if ask.wants_json and not ask.forced:
            schema = ask.schema or _schema_in(ask.prompt)
            return Reply(json.dumps(filled(schema, ask.prompt), ensure_ascii=False))
        may = said is None and not ask.after_tool and ask.choice != "none"
        if ask.forced or (may and ask.tools):
            return Reply(tool_calls=[_call(ask)])
        if said is not None:
            return Reply(said)
        return Reply(f"You said: {ask.prompt}" if ask.prompt else "You said nothing.")

    def _next_said(self, body: Body) -> str | Reply | None:
        with self._lock:
            number = self._said
            self._said += 1
            answers = self.answers
        if answers is None:
            return None
        said = answers(body) if callable(answers) else answers[number % len(answers)]
        if not isinstance(said, str | Reply):
            raise ConfigurationError(
                f"the script of {self.name!r} must say a str or a Reply, not a "
                f"{type(said).__name__}"
            )
        return said


def _no_fault(_: int) -> Fault | None:
    return None


def _call(ask: Ask) -> ToolCall:
    """Return the call that is asked for: by choice, else by the prompt's words."""
    name = ask.tool
    if name is None:
        first = next(iter(ask.tools))
        name = next((tool for tool in ask.tools if tool in ask.prompt), first)
    return ToolCall(name, filled(ask.tools[name], ask.prompt))


def _schema_in(prompt: str) -> Body:
    """Return a schema with the words that a prompt puts in quotes as its keys."""
    names = [single or double for single, double in _QUOTED.findall(prompt)]
    return {"properties": {name: {} for name in names or ["answer"]}}


def _cut(
    text: str, ask: Ask
) -> tuple[str, Literal["done", "length", "stop_word"], str | None]:
    found = [(text.index(word), word) for word in ask.stop if word in text]
    ended: Literal["done", "length", "stop_word"] = "done"
    stop_word = None
    if found:
        end, stop_word = min(found)
        text, ended = text[:end], "stop_word"
    words = text.split(" ")
    if ask.max_tokens is not None and len(words) > ask.max_tokens:
        return " ".join(words[: ask.max_tokens]), "length", None
    return text, ended, stop_word


def _counted(ask: Ask, text: str, reply: Reply) -> Usage:
    thought = len(reply.reasoning.split())
    calls = sum(1 + len(call.arguments) for call in reply.tool_calls)
    said = len(text.split()) + calls + thought
    return Usage(ask.words, said, reasoning_tokens=thought)
