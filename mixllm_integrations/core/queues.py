"""The calls that one candidate has under way, and how fast it answers.

Beside `waiting`, which keeps one of these for each candidate and holds the lock.
"""

from dataclasses import dataclass

from mixllm_integrations.core.types import Outcome

__all__ = ["Queue"]

_FIRST_TOKEN_TAKES = 30.0  # as long as so many others: about 0.5 s at 60 tokens/s


@dataclass(slots=True)
class Queue:
    """One candidate: the calls it has, and how fast it is (where known)."""

    concurrency: float
    first_token: float | None
    per_token: float | None
    calls: int = 0
    tokens: float = 0.0

    def wait(self) -> float:
        """Seconds until a call that comes now would be served."""
        ahead = self.calls + 1 - self.concurrency
        if ahead <= 0 or (self.first_token is None and self.per_token is None):
            return 0.0
        mean_tokens = self.tokens / self.calls
        service = (self.first_token or 0.0) + mean_tokens * (self.per_token or 0.0)
        return ahead / self.concurrency * service

    def enter(self, output_tokens: float) -> None:
        """Count a call, with the length that was predicted for its answer."""
        self.calls += 1
        self.tokens += output_tokens

    def leave(self, output_tokens: float) -> None:
        """Count a call no longer."""
        self.calls -= 1
        self.tokens = self.tokens - output_tokens if self.calls else 0.0

    def learn(self, outcome: Outcome, smoothing: float) -> None:
        """Let an answer's speed weigh so much in the moving means."""
        first, per_token = self._measured(outcome)
        self.first_token = _smoothed(self.first_token, first, smoothing)
        self.per_token = _smoothed(self.per_token, per_token, smoothing)

    def _measured(self, outcome: Outcome) -> tuple[float | None, float | None]:
        """Time to first token and seconds per token of one answer."""
        first, latency = outcome.time_to_first_token_seconds, outcome.latency_seconds
        tokens = outcome.output_tokens
        if latency is None:
            return first, None
        if tokens <= 0:
            return (latency if first is None else first), None
        if first is None:
            first = self._first_share(tokens) * latency
        return first, max(latency - first, 0.0) / tokens

    def _first_share(self, tokens: float) -> float:
        """Part of a latency that was the wait for the first token (our choice).

        As the speed known so far has it; where that is not known in both its
        parts, a fixed number of other tokens takes as long as the first one.
        """
        if self.first_token is not None and self.per_token is not None:
            known = self.first_token + tokens * self.per_token
            if known > 0:
                return self.first_token / known
        return _FIRST_TOKEN_TAKES / (tokens + _FIRST_TOKEN_TAKES)


def _smoothed(
    old: float | None, measured: float | None, smoothing: float
) -> float | None:
    if measured is None or old is None:
        return old if measured is None else measured
    return old + smoothing * (measured - old)
