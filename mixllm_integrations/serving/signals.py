"""Notices that the last question of a session is asked once more.

What else the traffic tells of an answer stands on the answer itself, or on what
comes back of it: the adapters see that.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from mixllm_integrations.core.forking import forkable_lock
from mixllm_integrations.serving.options import Asked, CallOptions

if TYPE_CHECKING:
    from mixllm_integrations.serving.dispatch import Dispatcher

__all__ = ["LastQuestions", "asked_again", "question_of"]

# All our choice. Who asks later has changed his mind, or is a job that runs again.
_FRESH_SECONDS = 600.0
_CAPACITY = 10_000
_DIGEST_BYTES = 16


class _Answered(NamedTuple):
    question: bytes
    decision_id: str
    at: float


class LastQuestions:
    """Remembers who answered the last question of each session. Safe in threads.

    A question is kept as a digest, so no prompt text is.

    Parameters
    ----------
    clock
        Seconds that never go backwards.
    capacity
        How many sessions are remembered, those that were answered last.

    Notes
    -----
    Source: our choice.

    Examples
    --------
    >>> last = LastQuestions(clock=lambda: 0.0)
    >>> last.answered("session", b"why?", "d1")
    >>> last.take("session", b"why?"), last.take("session", b"why?")
    ('d1', None)
    """

    __slots__ = ("_answered", "_capacity", "_clock", "_lock")

    def __init__(
        self, *, clock: Callable[[], float], capacity: int = _CAPACITY
    ) -> None:
        self._clock = clock
        self._capacity = capacity
        self._lock = forkable_lock()  # a finalizer may come in between
        self._answered: OrderedDict[str, _Answered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answered)

    def take(self, session: str, question: bytes) -> str | None:
        """Return which decision answered this question a moment ago.

        The session has no last question then, until the next one is answered.

        Parameters
        ----------
        session
            Which session.
        question
            What is asked in it, as `question_of` has it.

        Returns
        -------
        str or None
            Id of the decision; ``None`` if another question was the last one,
            or if that was minutes ago.
        """
        with self._lock:
            last = self._answered.pop(session, None)
        if last is None or last.question != question:
            return None
        is_fresh = self._clock() - last.at <= _FRESH_SECONDS
        return last.decision_id if is_fresh else None

    def answered(self, session: str, question: bytes | None, decision_id: str) -> None:
        """Note that a question has been answered.

        Parameters
        ----------
        session
            Which session.
        question
            The question; ``None``: still the last one, as in a loop of tool
            calls, of which the latest answer is the one to blame.
        decision_id
            Who answered.
        """
        with self._lock:
            last = self._answered.pop(session, None)
            if question is None:
                if last is None:
                    return
                question = last.question
            self._answered[session] = _Answered(question, decision_id, self._clock())
            while len(self._answered) > self._capacity:
                self._answered.popitem(last=False)


def question_of(asked: Asked, form: str = "") -> bytes:
    """Return a digest by which the same question is known again.

    Parameters
    ----------
    asked
        What is routed. Its length is that of the whole conversation, which an
        answer or a tool's result makes longer.
    form
        What the answer must be like, for example the name of a schema.

    Returns
    -------
    bytes
        The digest, nothing of the text.

    Examples
    --------
    >>> asked = Asked("why?", 7, (), None)
    >>> question_of(asked) == question_of(asked._replace(input_tokens=19))
    False
    """
    parts = (asked.query, str(asked.input_tokens), *asked.requires, form)
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def asked_again(
    dispatcher: "Dispatcher", asked: Asked, options: CallOptions, form: str
) -> bytes | None:
    """Notice that the last question of a session is asked again, and tell it.

    Parameters
    ----------
    dispatcher
        Who remembers the last questions.
    asked
        What is routed.
    options
        What the caller asks of the call.
    form
        In what form the answer is wanted, as for `question_of`.

    Returns
    -------
    bytes or None
        The question; ``None`` if nobody wants to know, or if an earlier one is
        still being answered, in a loop of tool calls.
    """
    last, session = dispatcher.last_questions, options.session
    is_loop = options.prefer is not None
    if last is None or session is None or options.dry_run or is_loop:
        return None
    question = question_of(asked, form)
    earlier = last.take(session, question)
    if earlier is not None:
        dispatcher.tell(earlier, "regenerate")
    return question
