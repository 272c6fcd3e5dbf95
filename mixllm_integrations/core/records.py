"""Labels as a table: one row per query, one column per candidate.

Several records of one (query, candidate) are averaged, so that copies of a
query always stay in one fold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError, UnknownCandidateError
from mixllm_integrations.core.types import FloatArray, RoutingRecord

__all__ = ["RecordTable", "tabulate"]

_NUMBERS = ("quality", "input_tokens", "output_tokens", "cost")


@dataclass(frozen=True, slots=True, eq=False)
class RecordTable:
    """What is known of each query and candidate.

    Parameters
    ----------
    queries
        Distinct texts, in alphabetical order.
    tags
        Tags of each query, over all its records.
    names
        Candidates with at least one record, in the router's order.
    quality, input_tokens, output_tokens, cost
        Means over the records, shape ``(n_queries, n_candidates)``, NaN where
        nothing was recorded.
    """

    queries: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    quality: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    cost: FloatArray

    def rows(self, chosen: Sequence[int]) -> "RecordTable":
        """Return the table of some queries.

        Parameters
        ----------
        chosen
            Their rows.
        """
        return RecordTable(
            tuple(self.queries[i] for i in chosen),
            tuple(self.tags[i] for i in chosen),
            self.names,
            *(getattr(self, name)[list(chosen)] for name in _NUMBERS),
        )


def tabulate(
    records: Iterable[RoutingRecord], candidates: Sequence[str]
) -> RecordTable:
    """Return the table of some records, queries in alphabetical order.

    So a fit does not depend on the order in which records came.

    Parameters
    ----------
    records
        In any order; partial labels are fine.
    candidates
        Names the router knows.

    Raises
    ------
    UnknownCandidateError
        If a record names another candidate.
    ConfigurationError
        If there are no records, or one is not a `RoutingRecord`.
    """
    row_of: dict[str, int] = {}
    tags: list[dict[str, None]] = []
    place = {name: column for column, name in enumerate(candidates)}
    cells: list[tuple[int, int]] = []
    numbers: list[tuple[float | None, ...]] = []
    for record in records:
        if not isinstance(record, RoutingRecord):
            raise ConfigurationError(
                f"records must be RoutingRecord, not {type(record).__name__}"
            )
        if record.candidate not in place:
            raise UnknownCandidateError(record.candidate, candidates)
        row = row_of.setdefault(record.query, len(row_of))
        if row == len(tags):
            tags.append({})
        tags[row].update(dict.fromkeys(record.tags))
        cells.append((row, place[record.candidate]))
        numbers.append(
            (record.quality, record.input_tokens, record.output_tokens, record.cost)
        )
    if not cells:
        raise ConfigurationError("there are no records: pass at least one")
    shape = (len(row_of), len(candidates))
    where = tuple(np.array(cells, dtype=np.intp).T)
    values = np.array(numbers, dtype=np.float64)  # None becomes NaN
    seen = np.zeros(shape, dtype=np.bool_)
    seen[where] = True
    columns = np.flatnonzero(seen.any(axis=0)).tolist()
    means = [_means(shape, where, v)[:, columns] for v in values.T]
    names = tuple(candidates[c] for c in columns)
    queries = tuple(row_of)
    table = RecordTable(queries, tuple(map(tuple, tags)), names, *means)
    return table.rows(sorted(range(len(queries)), key=queries.__getitem__))


def _means(
    shape: tuple[int, int], where: tuple[np.ndarray, ...], values: FloatArray
) -> FloatArray:
    known = np.isfinite(values)
    place = tuple(axis[known] for axis in where)
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, place, values[known])
    np.add.at(counts, place, 1.0)
    return np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)
