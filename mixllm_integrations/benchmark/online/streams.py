"""Streams of real outcomes: what is asked, who answers how, who hears of it when.

Each is made from recorded answers alone. A stream knows what every candidate
would have answered; a learner is told what the chosen one did, and no more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.benchmark.table import BenchmarkTable
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.types import Candidate, FeedbackKind, FloatArray

__all__ = [
    "BINARY_STREAMS",
    "EXTRA_STREAMS",
    "MAIN_STREAMS",
    "STREAMS",
    "Change",
    "Ground",
    "Stream",
    "chosen_newcomer",
    "make_stream",
]

# Our choices, named in the issue or near to it.
PRICE_CUT = 0.2
_FLIPPED = 0.2
_ANSWERED = 0.1
_DELAY = (50, 500)
_SPEAKS_IF_BAD, _SPEAKS_IF_GOOD = 0.5, 0.1
_STILL_RIGHT = 0.5
_STRONG_PRICE = 0.5  # of the highest mean cost


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to the candidates before a query is routed.

    Parameters
    ----------
    step
        Before which query of the stream.
    kind
        ``"join"``, ``"leave"`` or ``"price"``.
    candidate
        Who, with the prices from then on.
    """

    step: int
    kind: Literal["join", "leave", "price"]
    candidate: Candidate


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """A sequence of queries with all that a learner could be told of them.

    Parameters
    ----------
    name
        One of `STREAMS`.
    kind
        Of the feedback.
    candidates
        The columns, at the prices of the first query.
    start
        Which columns compete at first.
    quality, cost
        Of every answer at the time of the query, shape
        ``(n_steps, n_candidates)``; cost in USD.
    said
        The feedback that comes if a candidate is chosen, same shape; NaN where
        nobody says anything.
    due
        After which query the feedback of each comes, shape ``(n_steps,)``; the
        last ones come after the last query.
    test_quality, test_cost
        Of the queries held out, in the world as it is after the stream.
    changes
        In order.
    focus
        Whose share of the traffic is of interest.
    turning
        At which query something happens to it; the length of the stream if
        nothing does.
    """

    name: str
    kind: FeedbackKind
    candidates: tuple[Candidate, ...]
    start: NDArray[np.bool_]
    quality: FloatArray
    cost: FloatArray
    said: FloatArray
    due: NDArray[np.int64]
    test_quality: FloatArray
    test_cost: FloatArray
    changes: tuple[Change, ...] = ()
    focus: str = ""
    turning: int = field(default=-1)

    def __len__(self) -> int:
        return len(self.quality)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(c.name for c in self.candidates)

    def present(self) -> NDArray[np.bool_]:
        """Return who competes for each query, shape ``(n_steps, n_candidates)``."""
        found = np.tile(self.start, (len(self), 1))
        for change in self.changes:
            if change.kind != "price":
                column = self.names.index(change.candidate.name)
                found[change.step :, column] = change.kind == "join"
        return found

    def price_factors(self) -> FloatArray:
        """Return each price relative to the first one, shaped as `present`."""
        found = np.ones((len(self), len(self.candidates)))
        for change in self.changes:
            if change.kind == "price":
                column = self.names.index(change.candidate.name)
                first = _list_price(self.candidates[column])
                now = _list_price(change.candidate)
                found[change.step :, column] = now / first if first else 1.0
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What streams are made of.

    Parameters
    ----------
    asked
        The queries in the order in which they come, all candidates answered.
    test
        The queries held out.
    start
        Who competes in a stream where nobody joins.
    newcomer
        Who joins where somebody does.
    usual
        The columns that a router chooses for `asked` that learns nothing.
    seed
        Of all that is drawn.
    """

    asked: BenchmarkTable
    test: BenchmarkTable
    start: tuple[str, ...]
    newcomer: str
    usual: NDArray[np.int64]
    seed: int

    def first(self, n_steps: int) -> Self:
        """Return the same with no more than so many queries."""
        n_steps = min(n_steps, len(self.asked))
        return replace(
            self, asked=self.asked.select(range(n_steps)), usual=self.usual[:n_steps]
        )

    def most_used(self, n_steps: int) -> str:
        """Return whom a router that learns nothing asks most."""
        counts = np.bincount(self.usual[:n_steps], minlength=len(self.asked.names))
        return self.asked.names[int(counts.argmax())]


def chosen_newcomer(
    table: BenchmarkTable, pool: Sequence[str], willingness_to_pay: float
) -> str:
    """Return who joins: the best one beside the pool, or else of the pool.

    Parameters
    ----------
    table
        Whose mean qualities and costs decide.
    pool
        Who competes usually.
    willingness_to_pay
        USD for one whole point of quality: whoever joins should be worth it.
    """
    worth = table.quality.mean(axis=0) - table.cost.mean(axis=0) / willingness_to_pay
    outside = [name for name in table.names if name not in pool]
    return max(outside or pool, key=lambda name: worth[table.names.index(name)])


def make_stream(name: str, ground: Ground) -> Stream:
    """Return a stream.

    Parameters
    ----------
    name
        One of `STREAMS` or `EXTRA_STREAMS`.
    ground
        What it is made of; the same ground gives the same stream.

    Raises
    ------
    ConfigurationError
        If there is no such stream, or too few queries for it.
    """
    if name not in _MAKERS:
        known = tuple(_MAKERS)
        raise ConfigurationError(f"unknown stream {name!r}; use one of {known}")
    n_steps = len(ground.asked)
    if n_steps < 4:
        raise ConfigurationError(f"a stream needs at least 4 queries, not {n_steps}")
    names = ground.asked.names
    plain = Stream(
        name,
        "refined",
        ground.asked.candidates,
        np.array([n in ground.start for n in names]),
        quality=ground.asked.quality,
        cost=ground.asked.cost,
        said=ground.asked.quality,
        due=np.arange(n_steps, dtype=np.int64),
        test_quality=ground.test.quality,
        test_cost=ground.test.cost,
        focus=ground.most_used(n_steps),
        turning=n_steps,
    )
    rng = np.random.default_rng([ground.seed, [*_MAKERS].index(name)])
    return _MAKERS[name](plain, ground, rng)


def _list_price(candidate: Candidate) -> float:
    return (
        candidate.input_cost_per_million_tokens
        + candidate.output_cost_per_million_tokens
    )


_Maker = Callable[[Stream, Ground, np.random.Generator], Stream]


def _as_it_is(plain: Stream, ground: Ground, rng: np.random.Generator) -> Stream:
    del ground, rng
    return plain


def _binary(plain: Stream, ground: Ground, rng: np.random.Generator) -> Stream:
    """Draw satisfied or not; 0 and 1 stay what they are."""
    del ground
    satisfied = rng.random(plain.quality.shape) < plain.quality
    return replace(plain, kind="binary", said=satisfied.astype(np.float64))


def _noisy(plain: Stream, ground: Ground, rng: np.random.Generator) -> Stream:
    binary = _binary(plain, ground, rng)
    flipped = rng.random(binary.said.shape) < _FLIPPED
    return replace(binary, said=np.where(flipped, 1.0 - binary.said, binary.said))


def _sparse(plain: Stream, ground: Ground, rng: np.random.Generator) -> Stream:
    del ground
    answered = rng.random((len(plain), 1)) < _ANSWERED
    return replace(plain, said=np.where(answered, plain.said, np.nan))


def _delayed(plain: Stream, ground: Ground, rng: np.random.Generator) -> Stream:
    del ground
    delay = rng.integers(_DELAY[0], _DELAY[1], size=len(plain), endpoint=True)
    return replace(plain, due=plain.due + delay)


def _mnar(plain: Stream, ground: Ground, rng: np.random.Generator) -> Stream:
    binary = _binary(plain, ground, rng)
    chance = np.where(binary.said > 0, _SPEAKS_IF_GOOD, _SPEAKS_IF_BAD)
    speaks = rng.random((len(plain), 1)) < chance
    return replace(binary, said=np.where(speaks, binary.said, np.nan))


def _newcomer(plain: Stream, ground: Ground, rng: np.random.Generator) -> Stream:
    del rng
    column, half = plain.names.index(ground.newcomer), len(plain) // 2
    start = plain.start.copy()
    start[column] = False
    joins = Change(half, "join", plain.candidates[column])
    return replace(
        plain, start=start, changes=(joins,), focus=ground.newcomer, turning=half
    )


def _leaver(plain: Stream, ground: Ground, rng: np.random.Generator) -> Stream:
    del rng
    half, back = len(plain) // 2, 3 * len(plain) // 4
    name = ground.most_used(half)
    who = plain.candidates[plain.names.index(name)]
    changes = (Change(half, "leave", who), Change(back, "join", who))
    return replace(plain, changes=changes, focus=name, turning=half)


def _degraded(plain: Stream, ground: Ground, rng: np.random.Generator) -> Stream:
    """Let each right answer of the favourite be wrong half of the time."""
    third = len(plain) // 3
    name = ground.most_used(third)
    column = plain.names.index(name)
    quality, test_quality = plain.quality.copy(), plain.test_quality.copy()
    quality[third:, column] *= rng.random(len(plain) - third) < _STILL_RIGHT
    test_quality[:, column] *= rng.random(len(test_quality)) < _STILL_RIGHT
    return replace(
        plain,
        quality=quality,
        said=quality,
        test_quality=test_quality,
        focus=name,
        turning=third,
    )


def _price_cut(plain: Stream, ground: Ground, rng: np.random.Generator) -> Stream:
    """Let the strongest of the dear candidates cost a fifth."""
    del rng
    half = len(plain) // 2
    mean_cost = np.where(plain.start, ground.asked.cost.mean(axis=0), 0.0)
    is_dear = mean_cost >= _STRONG_PRICE * mean_cost.max()
    strength = np.where(is_dear, ground.asked.quality.mean(axis=0), -1.0)
    column = int(strength.argmax())
    before = plain.candidates[column]
    after = replace(
        before,
        input_cost_per_million_tokens=PRICE_CUT * before.input_cost_per_million_tokens,
        output_cost_per_million_tokens=PRICE_CUT
        * before.output_cost_per_million_tokens,
    )
    cost, test_cost = plain.cost.copy(), plain.test_cost.copy()
    cost[half:, column] *= PRICE_CUT
    test_cost[:, column] *= PRICE_CUT
    return replace(
        plain,
        cost=cost,
        test_cost=test_cost,
        changes=(Change(half, "price", after),),
        focus=before.name,
        turning=half,
    )


_MAKERS: Mapping[str, _Maker] = {
    "refined-30/70": _as_it_is,
    "refined-70/30": _as_it_is,
    "binary-30/70": _binary,
    "noisy": _noisy,
    "sparse": _sparse,
    "delayed": _delayed,
    "mnar": _mnar,
    "newcomer": _newcomer,
    "leaver": _leaver,
    "degraded": _degraded,
    "unseen-domains": _as_it_is,
    "price-cut": _price_cut,
    "refined-5/95": _as_it_is,
}

# Beyond those of the issue: with little that is labelled offline there is more to
# learn online.
EXTRA_STREAMS = ("refined-5/95",)
STREAMS = tuple(name for name in _MAKERS if name not in EXTRA_STREAMS)
# Those that the paper has, and ours: they run over all queries that are there.
MAIN_STREAMS = (
    *("refined-30/70", "refined-70/30", "binary-30/70", "unseen-domains"),
    *EXTRA_STREAMS,
)
BINARY_STREAMS = ("binary-30/70", "noisy", "mnar")
