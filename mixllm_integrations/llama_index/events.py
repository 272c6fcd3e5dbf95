"""What `MixLLM` tells LlamaIndex's instrumentation."""

from typing import Self

from llama_index.core.instrumentation.events import BaseEvent

from mixllm_integrations.core.types import Decision

__all__ = ["MixLLMRoutingEvent"]


class MixLLMRoutingEvent(BaseEvent):
    """A call was routed; once per attempt, before the chosen LLM is asked.

    It carries no text of the prompt. `MixLLM.record_feedback` takes it in
    place of the answer.

    Attributes
    ----------
    decision_id
        Name of the decision.
    candidate
        Who is to answer.
    predicted_quality, predicted_cost
        What is expected of it; quality in [0, 1], cost in USD.
    willingness_to_pay
        USD for one whole point of quality at that moment.
    explored
        Whether the choice differs from the greedy one.
    scores
        What the decision compared, by candidate; the excluded ones are absent.
    excluded
        Which hard limit took each candidate out.
    attempt
        1 for the first choice, 2 if it failed and this is the next, …
    """

    decision_id: str
    candidate: str
    predicted_quality: float
    predicted_cost: float
    willingness_to_pay: float
    explored: bool
    scores: dict[str, float]
    excluded: dict[str, str]
    attempt: int = 1

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which handlers see it."""
        return "MixLLMRoutingEvent"

    @classmethod
    def of(cls, decision: Decision, *, attempt: int, span_id: str | None) -> Self:
        """Return the event of a decision.

        Parameters
        ----------
        decision
            What was decided.
        attempt
            Which attempt at this call it is, from 1.
        span_id
            The span of the call.

        Returns
        -------
        MixLLMRoutingEvent
            The event.
        """
        expected = decision.prediction
        return cls(
            span_id=span_id,
            decision_id=decision.id,
            candidate=decision.candidate,
            predicted_quality=float(expected.quality),
            predicted_cost=float(expected.cost),
            willingness_to_pay=float(decision.willingness_to_pay),
            explored=bool(decision.explored),
            scores={
                name: float(prediction.score)
                for name, prediction in decision.scores.items()
                if name not in decision.excluded
            },
            excluded=dict(decision.excluded),
            attempt=attempt,
        )
