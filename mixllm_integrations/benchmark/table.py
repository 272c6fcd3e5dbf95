"""Recorded answers as matrices: the form in which benchmarks read them.

A data set of records names each query once per candidate. Here it is one row
per query and one column per candidate, with NaN where nothing was recorded.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.types import Candidate, FloatArray, RoutingRecord

__all__ = ["ASSUMED_OUTPUT_TOKENS", "BenchmarkTable", "estimate_prices"]

ASSUMED_OUTPUT_TOKENS = 200.0
_CHARACTERS_PER_TOKEN = 4.0
_MATRICES = ("quality", "input_tokens", "output_tokens", "cost", "latency_seconds")


@dataclass(frozen=True, slots=True, eq=False)
class BenchmarkTable:
    """What every candidate answered to every query.

    Parameters
    ----------
    name
        What reports call the data set.
    queries
        The texts; one text may occur more than once, with other labels.
    tags
        What each query is about; the first tag is its domain.
    candidates
        The columns, with their prices.
    quality, input_tokens, output_tokens, cost, latency_seconds
        Shape ``(n_queries, n_candidates)``, NaN where nothing was recorded;
        quality in [0, 1], cost in USD.
    """

    name: str
    queries: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    candidates: tuple[Candidate, ...]
    quality: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    cost: FloatArray
    latency_seconds: FloatArray

    def __post_init__(self) -> None:
        shape = (len(self.queries), len(self.candidates))
        for matrix in _MATRICES:
            found = getattr(self, matrix).shape
            if found != shape:
                raise ConfigurationError(
                    f"{matrix} of table {self.name!r} must have shape {shape} "
                    f"(queries, candidates), not {found}"
                )

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the candidates, in the order of the columns."""
        return tuple(c.name for c in self.candidates)

    @property
    def domains(self) -> tuple[str, ...]:
        """First tag of each query, or an empty string."""
        return tuple(tags[0] if tags else "" for tags in self.tags)

    @classmethod
    def from_records(
        cls,
        records: Sequence[RoutingRecord],
        *,
        name: str = "records",
        query_ids: Sequence[str | None] | None = None,
        candidates: Sequence[Candidate] | None = None,
    ) -> Self:
        """Gather records into a table.

        Parameters
        ----------
        records
            One candidate's answer to one query each; several of one pair are
            averaged.
        name
            What reports call the data set.
        query_ids
            Which query each record belongs to; without ids (or where one is
            ``None``) records of one text belong together.
        candidates
            The columns; records of others are left out. Without it the
            candidates are those of the records, in order of appearance, at
            prices from `estimate_prices`.

        Returns
        -------
        BenchmarkTable
            Costs that were not recorded are tokens × price where both lengths
            are known.

        Raises
        ------
        ConfigurationError
            If there is no record, or a price can neither be read nor estimated.
        """
        if not records:
            raise ConfigurationError(f"data set {name!r} holds no record")
        chosen = tuple(estimate_prices(records) if candidates is None else candidates)
        column_of = {c.name: i for i, c in enumerate(chosen)}
        ids = query_ids if query_ids is not None else [None] * len(records)
        row_of: dict[tuple[bool, str], int] = {}
        queries: list[str] = []
        tags: list[tuple[str, ...]] = []
        rows, columns, kept = [], [], []
        for record, query_id in zip(records, ids, strict=True):
            column = column_of.get(record.candidate)
            if column is None:
                continue
            key = (query_id is None, record.query if query_id is None else query_id)
            row = row_of.setdefault(key, len(queries))
            if row == len(queries):
                queries.append(record.query)
                tags.append(record.tags)
            rows.append(row)
            columns.append(column)
            kept.append(record)
        where = (np.asarray(rows, int), np.asarray(columns, int))
        shape = (len(queries), len(chosen))
        values = {
            field: _averaged(where, [getattr(r, field) for r in kept], shape)
            for field in _MATRICES
        }
        listed = values["input_tokens"] * _prices(chosen, "input")
        listed += values["output_tokens"] * _prices(chosen, "output")
        values["cost"] = np.where(np.isnan(values["cost"]), listed, values["cost"])
        return cls(name, tuple(queries), tuple(tags), chosen, **values)

    def select(self, rows: NDArray[np.int64] | Sequence[int]) -> Self:
        """Return the table of some queries.

        Parameters
        ----------
        rows
            Their indices.
        """
        index = np.asarray(rows, dtype=np.int64)
        matrices = {m: getattr(self, m)[index] for m in _MATRICES}
        return replace(
            self,
            queries=tuple(self.queries[i] for i in index),
            tags=tuple(self.tags[i] for i in index),
            **matrices,
        )

    def only(self, names: Sequence[str]) -> Self:
        """Return the table of some candidates, in the order of the columns here.

        Parameters
        ----------
        names
            Whom to keep.

        Raises
        ------
        UnknownCandidateError
            If there is no such candidate.
        """
        for name in names:
            if name not in self.names:
                raise UnknownCandidateError(name, self.names)
        index = [i for i, name in enumerate(self.names) if name in set(names)]
        matrices = {m: getattr(self, m)[:, index] for m in _MATRICES}
        return replace(
            self, candidates=tuple(self.candidates[i] for i in index), **matrices
        )

    def complete(self) -> Self:
        """Return the queries whose quality and cost are known of all candidates.

        Raises
        ------
        ConfigurationError
            If no query is complete.
        """
        known = np.isfinite(self.quality) & np.isfinite(self.cost)
        rows = np.flatnonzero(known.all(axis=1))
        if not rows.size:
            shares = {
                n: float(s) for n, s in zip(self.names, known.mean(0), strict=True)
            }
            raise ConfigurationError(
                f"no query of {self.name!r} has a quality and a cost of every "
                f"candidate; share known: {shares}; leave some candidates out"
            )
        return self.select(rows)

    def records(self) -> list[RoutingRecord]:
        """Return one record per known quality, query after query."""
        found: list[RoutingRecord] = []
        for row, query in enumerate(self.queries):
            for column, candidate in enumerate(self.candidates):
                if math.isnan(self.quality[row, column]):
                    continue
                tokens_in = _optional(self.input_tokens[row, column])
                tokens_out = _optional(self.output_tokens[row, column])
                found.append(
                    RoutingRecord(
                        query,
                        candidate.name,
                        float(self.quality[row, column]),
                        None if tokens_in is None else round(tokens_in),
                        None if tokens_out is None else round(tokens_out),
                        _optional(self.cost[row, column]),
                        _optional(self.latency_seconds[row, column]),
                        self.tags[row],
                    )
                )
        return found


def estimate_prices(
    records: Iterable[RoutingRecord],
    *,
    assumed_output_tokens: float = ASSUMED_OUTPUT_TOKENS,
    known: Mapping[str, Candidate] | None = None,
) -> list[Candidate]:
    """Estimate the prices of candidates from what their answers cost.

    Non-negative least squares of the recorded costs on the recorded lengths.
    Where no length of an answer was recorded, input and output price can only
    be told apart under the assumption that all answers were equally long.

    Parameters
    ----------
    records
        Of any number of candidates.
    assumed_output_tokens
        Length of an answer where none was recorded. The costs of
        ``llmrouter_ulab`` were computed with 200.
    known
        Candidates whose declared prices are taken instead, by name, if they
        reproduce the recorded costs within 1 %, or if no cost was recorded.

    Returns
    -------
    list[Candidate]
        In order of appearance; prices rounded to six digits.

    Raises
    ------
    ConfigurationError
        If no cost was recorded of a candidate without a known price.

    Notes
    -----
    Our choice. A prompt without a recorded length counts as one token per four
    characters.

    Examples
    --------
    >>> found = estimate_prices([
    ...     RoutingRecord("a", "small", 1.0, 1000, 100, cost=0.0014),
    ...     RoutingRecord("b", "small", 0.0, 2000, 500, cost=0.004),
    ... ])[0]
    >>> found.input_cost_per_million_tokens, found.output_cost_per_million_tokens
    (1.0, 4.0)
    """
    of_candidate: dict[str, list[tuple[float, float, float]]] = {}
    for record in records:
        rows = of_candidate.setdefault(record.candidate, [])
        if record.cost is not None:
            rows.append((*_lengths(record, assumed_output_tokens), record.cost))
    return [
        _priced(name, np.asarray(rows, float).reshape(-1, 3), (known or {}).get(name))
        for name, rows in of_candidate.items()
    ]


def _lengths(record: RoutingRecord, assumed: float) -> tuple[float, float]:
    tokens_in, tokens_out = record.input_tokens, record.output_tokens
    return (
        len(record.query) / _CHARACTERS_PER_TOKEN if tokens_in is None else tokens_in,
        assumed if tokens_out is None else tokens_out,
    )


def _priced(name: str, rows: FloatArray, known: Candidate | None) -> Candidate:
    tokens, cost = rows[:, :2] / 1e6, rows[:, 2]
    if known is not None:
        listed = tokens @ [
            known.input_cost_per_million_tokens,
            known.output_cost_per_million_tokens,
        ]
        if abs(listed.sum() - cost.sum()) <= 0.01 * cost.sum():
            return known
    if not len(rows):
        raise ConfigurationError(
            f"the prices of candidate {name!r} cannot be estimated: none of its "
            "records has a cost; pass its prices, for example by a candidates file"
        )
    from scipy.optimize import nnls

    prices, _ = nnls(tokens, cost)
    return Candidate(name, *(float(f"{price:.6g}") for price in prices))


def _averaged(
    where: tuple[NDArray[np.int64], NDArray[np.int64]],
    values: Sequence[float | None],
    shape: tuple[int, int],
) -> FloatArray:
    given = np.asarray([math.nan if v is None else v for v in values], dtype=float)
    known = ~np.isnan(given)
    index = (where[0][known], where[1][known])
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, index, given[known])
    np.add.at(count, index, 1.0)
    mean = np.full(shape, math.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _prices(candidates: Sequence[Candidate], side: str) -> FloatArray:
    field = f"{side}_cost_per_million_tokens"
    return np.array([getattr(c, field) for c in candidates], dtype=float) / 1e6


def _optional(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
