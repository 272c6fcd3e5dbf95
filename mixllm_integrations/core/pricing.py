"""Stage 5: tokens to USD.

cost = (input tokens · input price + output tokens · output price) / 10⁶,
corrected per candidate by what was really recorded: its tokenizer counts
otherwise than ours, and a bill may hold more than the tokens that one sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixllm_integrations.core.records import RecordTable
from mixllm_integrations.core.types import Candidate, FloatArray

__all__ = [
    "LONGEST_ANSWER",
    "CostModel",
    "ListPrices",
    "RunningRatio",
    "fill_output_tokens",
    "token_cost",
]

_MILLION = 1e6
_RESTART = 20.0  # outcomes that a ratio counts as after an alarm
LONGEST_ANSWER = 200_000.0  # tokens; above what any model gives in one call


@dataclass(frozen=True, slots=True, eq=False)
class ListPrices:
    """List prices of some candidates, at hand for many calls.

    Parameters
    ----------
    given, taken
        USD per million input and output tokens, shape ``(n_candidates,)``.
    """

    given: FloatArray
    taken: FloatArray

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> "ListPrices":
        """Return the prices of some candidates.

        Parameters
        ----------
        candidates
            In the order of the last axis of what is priced.
        """
        return cls(
            np.array([c.input_cost_per_million_tokens for c in candidates], np.float64),
            np.array(
                [c.output_cost_per_million_tokens for c in candidates], np.float64
            ),
        )

    def cost(self, input_tokens: FloatArray, output_tokens: FloatArray) -> FloatArray:
        """Return the list price of some calls in USD.

        Parameters
        ----------
        input_tokens, output_tokens
            Shape ``(..., n_candidates)``.

        Notes
        -----
        Source: MixLLM §3.2. An absurd price overflows to infinity; who does not
        want to be warned of it says so.
        """
        return np.asarray(
            (input_tokens * self.given + output_tokens * self.taken) / _MILLION
        )


def token_cost(
    input_tokens: FloatArray, output_tokens: FloatArray, candidates: Sequence[Candidate]
) -> FloatArray:
    """Return the list price of some calls in USD.

    Parameters
    ----------
    input_tokens, output_tokens
        Shape ``(..., n_candidates)``.
    candidates
        Whose prices apply, in the order of the last axis.

    Notes
    -----
    Source: MixLLM §3.2.

    Examples
    --------
    >>> token_cost(np.array([1000.0]), np.array([100.0]), [Candidate("a", 2.0, 10.0)])
    array([0.003])
    """
    with np.errstate(over="ignore"):
        return ListPrices.of(candidates).cost(input_tokens, output_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class CostModel:
    """What turns our count of a prompt's tokens into a candidate's bill.

    Parameters
    ----------
    input_factor
        The candidate's count of input tokens over ours, ``(n_candidates,)``.
    cost_factor
        Recorded cost over tokens times price.
    fixed_cost
        Mean recorded cost in USD, where the tokens are priced at 0.
    """

    input_factor: FloatArray
    cost_factor: FloatArray
    fixed_cost: FloatArray

    @classmethod
    def fit(
        cls,
        table: RecordTable,
        counted: FloatArray,
        output_tokens: FloatArray,
        candidates: Sequence[Candidate],
    ) -> "CostModel":
        """Learn the factors as ratios of sums: unbiased in the mean.

        Parameters
        ----------
        table
            Recorded tokens and costs.
        counted
            Our count of each query's tokens, shape ``(n_queries,)``.
        output_tokens
            Recorded or implied, shape ``(n_queries, n_candidates)``.
        candidates
            Those of the table's columns.

        Notes
        -----
        Our choice: a recorded cost is authoritative.
        """
        input_factor, inputs = _inputs(table, counted)
        charged = [c.output_cost_per_million_tokens > 0 for c in candidates]
        # Where answers are free, an unknown length leaves no price unknown.
        outputs = np.where(charged, output_tokens, 0.0)
        priced = token_cost(inputs, outputs, candidates)
        cost_factor = _ratio(table.cost, priced)
        known = np.isfinite(table.cost)
        means = np.where(known, table.cost, 0.0).sum(axis=0) / np.maximum(
            known.sum(axis=0), 1
        )
        free = ~(np.where(np.isfinite(priced), priced, 0.0).sum(axis=0) > 0)
        return cls(input_factor, cost_factor, np.where(free, means, 0.0))

    @classmethod
    def unknown(cls, n_candidates: int) -> "CostModel":
        """Return the model of candidates of which no bill was seen.

        Parameters
        ----------
        n_candidates
            How many.
        """
        return cls(np.ones(n_candidates), np.ones(n_candidates), np.zeros(n_candidates))

    def select(self, kept: Sequence[int]) -> "CostModel":
        """Return the model of some candidates.

        Parameters
        ----------
        kept
            Their columns, in the new order.
        """
        chosen = list(kept)
        return CostModel(
            self.input_factor[chosen], self.cost_factor[chosen], self.fixed_cost[chosen]
        )

    def joined(self, other: "CostModel") -> "CostModel":
        """Return this model with the candidates of another one behind its own.

        Parameters
        ----------
        other
            Of other candidates.
        """
        return CostModel(
            np.concatenate([self.input_factor, other.input_factor]),
            np.concatenate([self.cost_factor, other.cost_factor]),
            np.concatenate([self.fixed_cost, other.fixed_cost]),
        )


def fill_output_tokens(
    table: RecordTable, counted: FloatArray, candidates: Sequence[Candidate]
) -> FloatArray:
    """Return output tokens, those that a recorded cost implies filled in.

    Parameters
    ----------
    table
        Recorded tokens and costs.
    counted
        Our count of each query's tokens, shape ``(n_queries,)``.
    candidates
        Those of the table's columns.

    Returns
    -------
    FloatArray
        Shape ``(n_queries, n_candidates)``, NaN where nothing is known. A cost
        implies no more than `LONGEST_ANSWER`; the rest is in the cost factor.
    """
    given = np.array([c.input_cost_per_million_tokens for c in candidates])
    taken = np.array([c.output_cost_per_million_tokens for c in candidates])
    _, inputs = _inputs(table, counted)
    left = table.cost * _MILLION - inputs * given
    implied = np.divide(left, taken, out=np.full_like(left, np.nan), where=taken > 0)
    known = np.isfinite(table.output_tokens)
    return np.where(known, table.output_tokens, implied.clip(0.0, LONGEST_ANSWER))


@dataclass(slots=True)
class RunningRatio:
    """How far reality is from what was predicted, learned outcome by outcome.

    Parameters
    ----------
    real, predicted
        Sums so far, in the same unit.
    prior
        Outcomes' worth of "the prediction is right" that it starts from.
    memory
        From so many outcomes on the older ones fade: lengths and bills change.

    Notes
    -----
    Our choice.

    Examples
    --------
    >>> ratio = RunningRatio(prior=1.0)
    >>> ratio.update(real=300.0, predicted=100.0)
    >>> ratio.value  # (300 + 1·100) / (100 + 1·100)
    2.0
    """

    real: float = 0.0
    predicted: float = 0.0
    count: int = 0
    prior: float = 20.0
    memory: float = 2_000.0

    def update(self, *, real: float, predicted: float) -> None:
        """Add one outcome.

        Parameters
        ----------
        real, predicted
            Both non-negative.
        """
        keep = 1.0 if self.count < self.memory else 1.0 - 1.0 / self.memory
        self.real = keep * self.real + real
        self.predicted = keep * self.predicted + predicted
        self.count += 1

    def restarted(self, factor: float) -> "RunningRatio":
        """Return a ratio that has changed, with little behind it yet.

        Parameters
        ----------
        factor
            How much more is real now than was before.
        """
        size = self.predicted / max(min(self.count, self.memory), 1) or 1.0
        sums = self.value * factor * _RESTART * size, _RESTART * size
        return RunningRatio(*sums, int(_RESTART), prior=1.0)

    @property
    def value(self) -> float:
        """The factor to multiply predictions by."""
        if not self.predicted > 0:
            return 1.0
        fading = min(self.memory / self.count, 1.0)  # the start fades as well
        weight = self.prior * fading * self.predicted / min(self.count, self.memory)
        return (self.real + weight) / (self.predicted + weight)


def _inputs(table: RecordTable, counted: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return what our counts are to be multiplied by, and the input tokens."""
    ours = np.broadcast_to(counted[:, None], table.quality.shape)
    factor = _ratio(table.input_tokens, ours)
    known = np.isfinite(table.input_tokens)
    return factor, np.where(known, table.input_tokens, ours * factor)


def _ratio(real: FloatArray, said: FloatArray) -> FloatArray:
    """Return the sum of one over that of the other, per column; 1 if unknown."""
    both = np.isfinite(real) & np.isfinite(said)
    above = np.where(both, real, 0.0).sum(axis=0)
    below = np.where(both, said, 0.0).sum(axis=0)
    ratio = np.ones(real.shape[1])
    np.divide(above, below, out=ratio, where=(below > 0) & both.any(axis=0))
    return ratio
