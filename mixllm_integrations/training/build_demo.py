"""Fit the small router that `mixllm demo` ships with.

Its records are the recorded answers of four real models to the multiple-choice
questions of MMLU-Pro (TIGER-AI-Lab, Apache-2.0). Only what was learned is
written, no question and no answer. The result depends on the data alone::

    python -m mixllm_integrations.training.build_demo \
        --data ../shared/data/mmlu_pro.parquet

It must not be used in figures on MMLU-Pro: it has seen these questions.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.errors import ConfigurationError, MixLLMError
from mixllm_integrations.core.types import Candidate, RoutingRecord

if TYPE_CHECKING:
    from mixllm_integrations.core.router import Router

__all__ = ["CANDIDATES", "build_demo_router", "main", "read_records"]

# List prices of the day the answers were recorded.
CANDIDATES: tuple[Candidate, ...] = (
    Candidate("gemini-1.5-flash-002", 0.075, 0.30, context_window=1_000_000),
    Candidate("llama-3.1-70b-instruct", 0.88, 0.88, context_window=131_072),
    Candidate("gemini-1.5-pro-002", 1.25, 5.0, context_window=2_000_000),
    Candidate("gpt-4o-2024-05-13", 5.0, 15.0, context_window=128_000),
)

_HOME = Path(__file__).resolve().parents[1] / "data" / "demo_router"
_COLUMNS = (
    *("query", "domain", "model", "quality"),
    *("input_tokens", "output_tokens", "cost_usd"),
)
_OPTIONS = "\nOptions:"
_WILLINGNESS_TO_PAY = 0.045
# Fewer questions and domains than there are keep the weights below 2 MB.
_MAX_QUERIES = 5_000
_N_DOMAINS = 6


def read_records(
    path: str | Path, *, candidates: Sequence[str], max_queries: int | None = None
) -> list[RoutingRecord]:
    """Return the recorded answers of some models.

    Parameters
    ----------
    path
        A parquet file with the columns query, domain, model, quality,
        input_tokens, output_tokens and cost_usd.
    candidates
        Names of the models; queries that one of them has not answered are
        left out.
    max_queries
        Only so many queries, evenly spaced; ``None``: all.

    Returns
    -------
    list of RoutingRecord
        In the order of the file. Every second question stands without its
        options, since what a user asks has none; its labels stay, our choice.

    Raises
    ------
    ConfigurationError
        If pyarrow is missing, the file is, or it lacks a column or a model.
    """
    rows = _read_rows(Path(path), candidates)
    answered: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        answered.setdefault(row["query"], []).append(row)
    complete = [
        group
        for group in answered.values()
        if len({row["model"] for row in group}) == len(candidates)
    ]
    records = []
    kept = complete
    if max_queries is not None and max_queries < len(complete):
        step = len(complete) / max_queries
        kept = [complete[int(place * step)] for place in range(max_queries)]
    for place, group in enumerate(kept):
        query = group[0]["query"]
        if place % 2:
            query = query.partition(_OPTIONS)[0]
        records += [_record(row, query) for row in group]
    return records


def _record(row: dict[str, Any], query: str) -> RoutingRecord:
    return RoutingRecord(
        query,
        row["model"],
        row["quality"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cost=row["cost_usd"],
        tags=(row["domain"],),
    )


def _read_rows(path: Path, candidates: Sequence[str]) -> list[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigurationError(
            "reading parquet needs pyarrow: pip install 'mixllm-integrations[data]'"
        ) from error
    if not path.is_file():
        raise ConfigurationError(f"there is no file {str(path)!r}: pass --data")
    try:
        table = pq.read_table(
            path, columns=list(_COLUMNS), filters=[("model", "in", list(candidates))]
        )
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path.name} cannot be read: {error}") from error
    rows: list[dict[str, Any]] = table.to_pylist()
    missing = set(candidates) - {row["model"] for row in rows}
    if missing or len(table.column_names) < len(_COLUMNS):
        lacking = sorted(missing | (set(_COLUMNS) - set(table.column_names)))
        raise ConfigurationError(f"{path.name} lacks {lacking}")
    return rows


def build_demo_router(
    records: Sequence[RoutingRecord],
    *,
    candidates: Sequence[Candidate] = CANDIDATES,
    willingness_to_pay: float = _WILLINGNESS_TO_PAY,
) -> "Router":
    """Return a small router that was fitted on records.

    Parameters
    ----------
    records
        From `read_records`.
    candidates
        Whom it chooses from.
    willingness_to_pay
        USD for one whole point of quality.

    Returns
    -------
    Router
        With linear heads, so that its weights stay small; without an
        exploration term, so that the demo is the same every time.
    """
    from mixllm_integrations.core.router import Router

    router = Router(
        candidates,
        predictor="ridge",
        willingness_to_pay=willingness_to_pay,
        exploration=0.0,
        n_domains=_N_DOMAINS,
        seed=0,
    )
    return router.fit(records)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the router and write it; return the exit code.

    Parameters
    ----------
    arguments
        Of the command line; ``None``: those of this process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mixllm_integrations.training.build_demo",
        description="Fit the router that `mixllm demo` ships with.",
    )
    parser.add_argument("--data", required=True, help="mmlu_pro.parquet")
    parser.add_argument("--out", default=str(_HOME), help="folder to write")
    parser.add_argument(
        "--max-queries",
        type=int,
        default=_MAX_QUERIES,
        help="use only N queries, evenly spaced",
    )
    chosen = parser.parse_args(arguments)
    try:
        records = read_records(
            chosen.data,
            candidates=[c.name for c in CANDIDATES],
            max_queries=chosen.max_queries,
        )
        build_demo_router(records).save(chosen.out, compact=True)
    except MixLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size = sum(f.stat().st_size for f in Path(chosen.out).rglob("*") if f.is_file())
    print(f"{chosen.out}: {len(records):,} records, {size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
