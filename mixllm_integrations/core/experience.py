"""What feedback, outcomes and the traffic itself teach, answer by answer.

On top of `memory`, which keeps what was learned. Takes no lock: the router holds
one.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np

from mixllm_integrations.core.drift import DriftEvent
from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.memory import Memory
from mixllm_integrations.core.pending import PendingDecision
from mixllm_integrations.core.pricing import RunningRatio
from mixllm_integrations.core.reliability import Evidence
from mixllm_integrations.core.types import (
    Feedback,
    FloatArray,
    ImplicitSignal,
    Outcome,
)

__all__ = ["Expected", "Experience"]

# Quality that the offline heads of now expect of one candidate at contexts.
Expected: TypeAlias = Callable[[str, FloatArray], FloatArray]

# Errors of calls of which at least a part was read: the reader went away, the
# answer came from a cache, or broke off.
_JUDGED_ALL_THE_SAME = ("abandoned", "cached", "broken off")

_LEAST_VARIANCE = 0.01
_LEAST_LATENCY_SECONDS = 0.1  # below it, what changes is the machine, not the model
# An alarm moves a level by the mean surprise since, drawn to 0 by so many answers;
# what the head says beyond its level is then trusted as one of few labels.
_ALARM_MASS, _LABELS_AFTER_ALARM = 5.0, 300.0


class _Answer(NamedTuple):
    """One answer, and what would be expected of it now, in units of quality."""

    name: str
    context: FloatArray
    predicted: float  # by the offline heads
    above: float  # level and score
    hoped: float  # all in all, in [0, 1]


class Experience(Memory):
    """Everything that was learned online, and how it goes on learning."""

    def rebase(
        self,
        knowledge: Knowledge,
        names: Collection[str],
        mark: int,
        levels: Mapping[str, float],
        expected: Expected,
    ) -> None:
        """Go on with refitted heads: residuals begin anew, and learn what came since.

        Parameters
        ----------
        knowledge
            With the new heads.
        names
            Whose heads are new.
        mark
            How many observations they were fitted on.
        levels
            What alarms had moved each candidate by then: the heads know of it.
        expected
            Quality that the new heads expect of one candidate at contexts.
        """
        self.revision = knowledge.revision
        since = self.replay.since(mark)
        self._factors = None
        for name in names:
            is_away = name in self.designs.kept
            if is_away:
                self.add(name)
            elif name not in self.designs.names:
                continue
            if not self.labels[name]:  # it had no head, so none for lengths either
                self.lengths[name], self.costs[name] = RunningRatio(), RunningRatio()
                self.drift.reset(name, "output_tokens")
                self.bases.pop(name, None)
            self.residuals.start(name, self.designs.seen(name))
            self.labels[name] = float(self.replay.labels(name))
            self.levels[name] -= levels.get(name, 0.0)
            if self.levels[name]:  # an alarm came meanwhile
                self.labels[name] = min(self.labels[name], _LABELS_AFTER_ALARM)
            self.drift.reset(name, "quality")
            if is_away:
                self.remove(name)
                continue
            rows = [i for i, who in enumerate(since.names) if who == name]
            if rows:
                foreseen = expected(name, since.contexts[rows]) + self.levels[name]
                left = since.targets[rows] - foreseen
                for i, residual in zip(rows, left.tolist(), strict=True):
                    weight = float(since.weights[i])
                    self._learn(name, since.contexts[i], residual, weight)

    def teach(
        self,
        pending: PendingDecision,
        feedback: Feedback,
        expected: Expected,
    ) -> DriftEvent | None:
        """Learn how good the answer of one decision was.

        It teaches nothing if the candidate is gone, the contexts have changed
        since, or the call failed before it gave an answer: availability is not
        quality.

        Parameters
        ----------
        pending
            What the decision was based on.
        feedback
            What somebody said.
        expected
            Quality that the offline heads of now expect of one candidate.

        Returns
        -------
        DriftEvent or None
            An alarm, if the candidate is not what it was.
        """
        if not self._is_teachable(pending):
            return None
        answer = self._judged(pending, expected)
        name, context, hoped = answer.name, answer.context, answer.hoped
        reward = float(feedback.reward)
        told = evidence = Evidence(residual=reward - hoped, weight=1.0)
        if feedback.kind == "binary":
            source = feedback.source
            evidence = self.reliability.evidence(source, predicted=hoped, reward=reward)
            share = self.reliability.share(source, candidate=name, predicted=hoped)
            told = replace(evidence, weight=share * evidence.weight)
            # By the offline heads: what was learned online came through this map.
            self.reliability.learn(
                source,
                candidate=name,
                predicted=min(max(answer.predicted, 0.0), 1.0),
                reward=reward,
            )
        self.signals.graded(pending.signals, predicted=hoped, reward=reward)
        if feedback.kind == "binary" and self.feedback_head is not None:
            names = self.designs.names
            self.feedback_head.learn(name, context, reward, among=names)
        elif self._take(answer, told):
            self._remember(pending, answer, told)
        self.designs.observe(name, context)
        self.trials.taught(name)
        # What says less moves less: noise is no reason for an alarm.
        surprise = evidence.residual * min(evidence.weight, 1.0)
        event = self.drift.observe_quality(
            name,
            surprise=surprise,
            variance=max(hoped * (1.0 - hoped), _LEAST_VARIANCE),
        )
        self.looks.taught(name, surprise=surprise)
        if event is not None:
            self._relearn(name, event)
        return event

    def signal(
        self,
        pending: PendingDecision,
        signal: ImplicitSignal,
        expected: Expected,
    ) -> None:
        """Learn from what the traffic itself tells of an answer.

        Parameters
        ----------
        pending
            What the decision was based on.
        signal
            What was seen.
        expected
            Quality that the offline heads of now expect of one candidate.
        """
        if not self._is_teachable(pending):
            return
        evidence = self.signals.signalled(signal, pending.candidate)
        if evidence is not None:
            self._take(self._judged(pending, expected), evidence)

    def measure(
        self,
        pending: PendingDecision,
        outcome: Outcome,
        cost: float | None,
        expected: Expected,
    ) -> list[DriftEvent]:
        """Learn how long the answer of one decision was, and what it cost.

        Parameters
        ----------
        pending
            What the decision was based on.
        outcome
            What happened; a failed call teaches nothing, and one that was cut
            short nothing of lengths.
        cost
            In USD; ``None``: unknown.
        expected
            Quality that the offline heads of now expect of one candidate.

        Returns
        -------
        list of DriftEvent
            Alarms.
        """
        if outcome.error is not None or pending.version != self.version:
            return []
        name = pending.candidate
        is_whole = "truncated" not in pending.signals
        tokens = outcome.output_tokens if is_whole else 0
        for which, (ratios, real, said) in enumerate(
            (
                (self.lengths, tokens, pending.predicted_output_tokens),
                (self.costs, cost if is_whole else None, pending.token_cost),
            )
        ):
            ratio = ratios.get(name)
            if ratio is not None and real and math.isfinite(said) and said > 0:
                ratio.update(real=float(real), predicted=said)
                self._refresh(which, name, ratio)
        if name not in self.designs.names:
            return []
        good = self.signals.answered(name)
        if good is not None:
            self._take(self._judged(pending, expected), good)
        return self._watch(pending, outcome, tokens, cost)

    def _is_teachable(self, pending: PendingDecision) -> bool:
        return (
            not _has_failed(pending.outcome)
            and pending.version == self.version
            and pending.candidate in self.designs.names
        )

    def _judged(self, pending: PendingDecision, expected: Expected) -> _Answer:
        """Return an answer beside what would be expected of it now.

        Not beside what was expected when it was asked for: after an alarm all that
        is still pending would raise it again.
        """
        name, context = pending.candidate, pending.context.astype(np.float64)
        predicted = pending.predicted_quality
        if pending.revision != self.revision:
            predicted = float(expected(name, context[None])[0])
        above = self.levels[name] + float(self.scores(context[None], [name])[0, 0])
        hoped = predicted + above + self.residuals.correct_one(name, context)
        hoped = min(max(hoped, 0.0), 1.0)
        return _Answer(name, context, predicted, above, hoped)

    def _take(self, answer: _Answer, evidence: Evidence) -> bool:
        """Learn one piece of evidence; tell whether it was accepted."""
        residual = evidence.residual + answer.hoped - answer.predicted - answer.above
        return self._learn(answer.name, answer.context, residual, evidence.weight)

    def _remember(
        self, pending: PendingDecision, answer: _Answer, evidence: Evidence
    ) -> None:
        """Keep what somebody said of an answer for the next refit."""
        outcome = pending.outcome
        is_whole = outcome is not None and "truncated" not in pending.signals
        tokens = outcome.output_tokens if outcome and is_whole else 0
        self.replay.add(
            answer.name,
            answer.context,
            expected=answer.hoped,
            surprise=evidence.residual,
            weight=evidence.weight,
            tokens=float(tokens or math.nan),
        )

    def _watch(
        self,
        pending: PendingDecision,
        outcome: Outcome,
        tokens: int,
        cost: float | None,
    ) -> list[DriftEvent]:
        name, found = pending.candidate, []
        if tokens and pending.predicted_output_tokens > 0:
            found.append(
                self.drift.observe_length(
                    name,
                    real_tokens=float(tokens),
                    expected_tokens=pending.predicted_output_tokens,
                )
            )
        if (outcome.latency_seconds or 0.0) >= _LEAST_LATENCY_SECONDS:
            found.append(
                self.drift.observe_latency(
                    name,
                    latency_seconds=float(outcome.latency_seconds or 0.0),
                    output_tokens=float(outcome.output_tokens),
                )
            )
        events = [event for event in found if event is not None]
        for event in events:
            if event.quantity == "output_tokens":
                said = pending.token_cost  # NaN after a new price
                paid = cost / said if cost and said > 0 else 1.0
                paid /= self.costs[name].value
                # A bill is input, too: it grows at most as the answers do.
                low, high = sorted((1.0, event.change))
                for which, (ratios, change) in enumerate(
                    (
                        (self.lengths, event.change),
                        (self.costs, min(max(paid, low), high)),
                    )
                ):
                    ratios[name] = ratios[name].restarted(change)
                    self._refresh(which, name, ratios[name])
        return events

    def _relearn(self, name: str, event: DriftEvent) -> None:
        """Believe what a candidate has done since it changed, not what it was."""
        count = event.n_observations
        moved = event.change * count / (count + _ALARM_MASS)
        self.levels[name] += moved
        if moved < 0.0:
            self.looks.fell(name, -moved)
        else:
            self.looks.discard(name)
        self.labels[name] = min(self.labels[name], _LABELS_AFTER_ALARM)
        self.replay.forget(name, keep=count)


def _has_failed(outcome: Outcome | None) -> bool:
    """Tell whether a call gave no answer that anybody could judge."""
    error = None if outcome is None else outcome.error
    return error is not None and not error.startswith(_JUDGED_ALL_THE_SAME)
