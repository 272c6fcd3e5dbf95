"""What is asked of calls and said of answers, on its way to the router."""

from functools import partial
from typing import Any

from llama_index.core.instrumentation.events import BaseEvent

from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import FeedbackKind, ImplicitSignal
from mixllm_integrations.llama_index.asking import Asking
from mixllm_integrations.llama_index.events import MixLLMRoutingEvent
from mixllm_integrations.llama_index.listening import DECISION_TAG
from mixllm_integrations.llama_index.pool import LLMPool
from mixllm_integrations.serving import RECORD_KEY, record_of
from mixllm_integrations.serving.threads import on_own_thread

__all__ = ["TeachableLLM"]


class TeachableLLM(LLMPool):
    """Adds what a caller asks of calls, feedback and signals."""

    def asking(self, **controls: Any) -> Asking:  # noqa: ANN401
        """Return a block of code in which all calls are asked the same.

        For query engines, agents and workflows, which call the LLM themselves.
        Calls count that begin in the block, also in tasks that are started in it;
        the innermost block wins, and an argument of the call itself before that.

        Parameters
        ----------
        **controls
            What is asked: `candidate`, `willingness_to_pay` (USD),
            `waiting_tolerance_seconds`, `max_cost_per_query` (USD),
            `give_up_after_seconds`, `session_id`, `shadow`, `dry_run`.

        Returns
        -------
        Asking
            Use it in a ``with``, in asynchronous code too. It keeps the routing
            `records` of the answers, and what they cost.

        Raises
        ------
        ConfigurationError
            If a name is unknown, or a value cannot be used.
        UnknownCandidateError
            If a candidate is named that is not there.

        Examples
        --------
        >>> from mixllm_integrations.llama_index import CandidateLLM, MixLLM
        >>> from mixllm_integrations.testing import ScriptedLLM
        >>> free = {
        ...     "input_cost_per_million_tokens": 0.0,
        ...     "output_cost_per_million_tokens": 0.0,
        ... }
        >>> llm = MixLLM(
        ...     [
        ...         CandidateLLM(llm=ScriptedLLM(), name=name, **free)
        ...         for name in ("small", "large")
        ...     ]
        ... )
        >>> with llm.asking(candidate="large", session_id="7") as asked:
        ...     answer = llm.complete("What is 2 + 2?")
        >>> asked.record["candidate"], llm.record_feedback(asked, 1.0)
        ('large', True)
        """
        asking = Asking(self.router, controls)
        for name in ("candidate", "shadow"):
            wanted = asking.controls.get(name)
            if wanted is not None and not self.meant_by(wanted):
                raise self.unknown(wanted)
        return asking

    def record_feedback(
        self,
        answer: object,
        reward: float,
        *,
        kind: FeedbackKind = "refined",
        source: str | None = None,
    ) -> bool:
        """Tell the router how good an answer was.

        Parameters
        ----------
        answer
            A response or its message, a chunk, an agent's output, what `asking`
            returned (its last answer is meant), an event of the instrumentation,
            or the id of a decision, an event, or a span.
        reward
            How good it was, in [0, 1].
        kind
            ``"refined"``: a measured quality. ``"binary"``: satisfied or not.
        source
            Who says so, for example ``"thumbs"``.

        Returns
        -------
        bool
            False if this decision already had feedback of this kind.

        Raises
        ------
        ConfigurationError
            If no decision is found on `answer`, or the reward is not legal.
        UnknownDecisionError
            If the router does not know the decision, or not any more.
        """
        return self.dispatcher.record_feedback(
            self._meant(answer), reward, kind=kind, source=source
        )

    async def arecord_feedback(
        self,
        answer: object,
        reward: float,
        *,
        kind: FeedbackKind = "refined",
        source: str | None = None,
    ) -> bool:
        """Do the same as `record_feedback`, on a thread of its own."""
        return await on_own_thread(
            partial(self.record_feedback, answer, reward, kind=kind, source=source)
        )

    def record_signal(self, answer: object, signal: ImplicitSignal) -> bool:
        """Tell what an application has noticed of an answer, though nobody judged it.

        What the LLM notices by itself it tells by itself: answers cut short, objects
        that cannot be parsed, tools that fail in `predict_and_call`, the same question
        asked again in one session.

        Parameters
        ----------
        answer
            As for `record_feedback`.
        signal
            ``"regenerate"``: the user wanted another answer. ``"tool_error"``: a
            tool refused the call. ``"parse_failure"``: what should have been of
            a schema was not. ``"truncated"``: it was cut short. Learned from if
            the router was made with it among its `implicit_signals`.

        Returns
        -------
        bool
            False if this was said of this answer already.

        Raises
        ------
        ConfigurationError
            If no decision is found on `answer`, or the signal is unknown.
        UnknownDecisionError
            If the router does not know the decision, or not any more.
        """
        return self.dispatcher.record_signal(self._meant(answer), signal)

    def _meant(self, answer: object) -> object:
        """Return what `Dispatcher.record_feedback` takes for an answer."""
        if isinstance(answer, Asking):
            if answer.record is None:
                raise ConfigurationError(
                    "no answer has come in this block of llm.asking(): there is "
                    "nothing to judge"
                )
            return answer.record
        if isinstance(answer, MixLLMRoutingEvent):
            return answer.decision_id
        if isinstance(answer, BaseEvent):  # of the chosen LLM
            return answer.tags.get(DECISION_TAG, answer)
        if record_of(answer) is None:
            answer = _inner(answer)
        return self.run_ids.resolve(answer)


def _inner(answer: object) -> object:
    """Return where an output of LlamaIndex's keeps the answer it came from."""
    metadata = getattr(answer, "metadata", None)
    if isinstance(metadata, dict) and RECORD_KEY in metadata:
        return metadata  # what `predict_and_call` returned
    if hasattr(answer, "source_nodes"):
        raise ConfigurationError(
            f"a {type(answer).__name__} of an engine keeps no answer of an LLM: call "
            "the engine in `with llm.asking() as asked:` and pass `asked`"
        )
    return getattr(answer, "response", answer)  # an agent's
