"""What users and the traffic say of answers, on its way to the router."""

from functools import partial

from mixllm_integrations.core.types import FeedbackKind, ImplicitSignal
from mixllm_integrations.langchain.callbacks import announce_feedback
from mixllm_integrations.langchain.pool import ModelPool
from mixllm_integrations.serving import decision_id_of
from mixllm_integrations.serving.threads import on_own_thread

__all__ = ["TeachablePool"]


class TeachablePool(ModelPool):
    """Adds feedback and signals."""

    def record_feedback(
        self,
        answer: object,
        reward: float,
        *,
        kind: FeedbackKind = "refined",
        source: str | None = None,
    ) -> bool:
        """Tell how good an answer was, so that the router learns from it.

        Parameters
        ----------
        answer
            The message as it was returned, a structured answer with its raw
            message, the id of the decision, or that of a run: of the routed
            call, of the chain right around it, or of the LLM run inside it.
        reward
            How good it was, in [0, 1].
        kind
            ``"refined"``: a measured quality. ``"binary"``: satisfied or not.
        source
            Who says so, for example ``"thumbs"``.

        Returns
        -------
        bool
            False if this decision had its feedback already.

        Raises
        ------
        ConfigurationError
            If no decision is found on `answer`, or the reward is not legal.
        UnknownDecisionError
            If the decision or run is not known, or not any more.
        """
        meant = self.run_ids.resolve(answer)
        new = self._dispatcher.record_feedback(meant, reward, kind=kind, source=source)
        if new:
            announce_feedback(decision_id_of(meant), float(reward))
        return new

    async def arecord_feedback(
        self,
        answer: object,
        reward: float,
        *,
        kind: FeedbackKind = "refined",
        source: str | None = None,
    ) -> bool:
        """Do the same as `record_feedback`, on a thread of its own.

        Parameters
        ----------
        answer, reward, kind, source
            As for `record_feedback`.

        Returns
        -------
        bool
            False if this decision had its feedback already.
        """
        return await on_own_thread(
            partial(self.record_feedback, answer, reward, kind=kind, source=source)
        )

    def record_signal(self, answer: object, signal: ImplicitSignal) -> bool:
        """Tell what an application has noticed of an answer, though nobody judged it.

        What the model notices by itself it tells by itself: answers cut short,
        structured output that cannot be parsed, tools that fail, the same
        question asked again in one session. This is for the rest, such as a
        button "another answer". It costs microseconds, also on an event loop.

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
            If the decision or run is not known, or not any more.
        """
        return self._dispatcher.record_signal(self.run_ids.resolve(answer), signal)
