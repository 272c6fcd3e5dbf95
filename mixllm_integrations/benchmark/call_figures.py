"""What was measured of calls: how long they took, and what was kept of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

__all__ = [
    "BARE",
    "FITTED",
    "HEARD",
    "PRIORS",
    "RIVAL",
    "BatchFigures",
    "CallFigures",
    "MemoryFigures",
    "MemorySample",
    "Timing",
]

# Who is called.
BARE = "bare model"
PRIORS = "ours, from priors"
FITTED = "ours, fitted"
HEARD = "ours, with handler"
RIVAL = "langchain-model-router"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long something took, in seconds.

    Parameters
    ----------
    p50, p99, mean
        Over `n` times.
    n
        How often it was measured.
    """

    p50: float
    p99: float
    mean: float
    n: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Return the figures of a sample."""
        values = np.asarray(seconds, dtype=float)
        p50, p99 = np.percentile(values, [50, 99])
        return cls(float(p50), float(p99), float(values.mean()), len(values))


@dataclass(frozen=True, slots=True)
class CallFigures:
    """One kind of call, by who was called.

    Parameters
    ----------
    seconds
        Of whole calls; of streams, to their first chunk.
    added
        What each router adds to the bare model: the differences within each
        turn, in which all answered the same prompt.
    to_rival
        Median added by each of ours, as a multiple of what the rival adds;
        empty if there is no rival.
    """

    seconds: dict[str, Timing]
    added: dict[str, Timing]
    to_rival: dict[str, float]

    @classmethod
    def of(cls, seconds: Mapping[str, Sequence[float]]) -> Self:
        """Return the figures of calls that took turns, the bare model among them."""
        bare = np.asarray(seconds[BARE])
        added = {
            who: Timing.of((np.asarray(spent) - bare).tolist())
            for who, spent in seconds.items()
            if who != BARE
        }
        rivals = added[RIVAL].p50 if RIVAL in added else 0.0
        ours = [who for who in added if who != RIVAL] if rivals > 0 else []
        return cls(
            {who: Timing.of(spent) for who, spent in seconds.items()},
            added,
            {who: added[who].p50 / rivals for who in ours},
        )


@dataclass(frozen=True, slots=True)
class BatchFigures:
    """Many prompts at once.

    Parameters
    ----------
    n_prompts, n_threads
        How many, and on how many threads.
    seconds
        Median over the rounds, by who was called.
    """

    n_prompts: int
    n_threads: int
    seconds: dict[str, float]

    @classmethod
    def of(
        cls, seconds: Mapping[str, Sequence[float]], *, n_prompts: int, n_threads: int
    ) -> Self:
        """Return the figures of some rounds."""
        medians = {who: float(np.median(spent)) for who, spent in seconds.items()}
        return cls(n_prompts, n_threads, medians)


@dataclass(frozen=True, slots=True)
class MemorySample:
    """What a process held at one time.

    Parameters
    ----------
    calls
        How many it had served.
    resident_bytes
        Its memory; ``None`` where it cannot be read.
    remembered
        How much of past calls was kept, by what it is.
    """

    calls: int
    resident_bytes: int | None
    remembered: dict[str, int]


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """What a process kept while it served.

    Parameters
    ----------
    samples
        On the way, the first ones while what is bounded still fills.
    bytes_per_call
        By how much the memory grew over the second half of the calls, as a
        line through its samples has it; ``None`` where it cannot be read.
    """

    samples: tuple[MemorySample, ...]
    bytes_per_call: float | None

    @classmethod
    def of(cls, samples: Sequence[Mapping[str, Any]]) -> Self:
        """Return the figures of samples, oldest first."""
        taken = tuple(MemorySample(**sample) for sample in samples)
        half = taken[-1].calls / 2
        late = [
            (s.calls, s.resident_bytes)
            for s in taken
            if s.calls >= half and s.resident_bytes is not None
        ]
        if len({calls for calls, _ in late}) < 2:  # no line through one point
            return cls(taken, None)
        calls, held = np.asarray(late, dtype=float).T
        centred = calls - calls.mean()
        slope = float(centred @ (held - held.mean()) / (centred @ centred))
        return cls(taken, slope)

    def at(self, *shares: float) -> tuple[MemorySample, ...]:
        """Return the samples closest to these shares of all calls.

        Parameters
        ----------
        *shares
            In [0, 1].
        """
        last = self.samples[-1].calls
        return tuple(
            min(self.samples, key=lambda s: abs(s.calls - share * last))
            for share in shares
        )
