"""Beside stage 9: what a router says of recorded queries that it has not seen.

Records that nothing was learned from are put to the router as it is. Those it
was fitted on are put to heads that were fitted without them.
"""

from collections.abc import Callable

from mixllm_integrations.core import budget
from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.encoder import Encoder
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.core.forecast import Forecaster, Knowledge
from mixllm_integrations.core.reading import Reading, read
from mixllm_integrations.core.records import RecordTable
from mixllm_integrations.core.types import BatchPrediction, Candidate, FloatArray

__all__ = ["judge"]

_FOLDS, _MOST_QUERIES = 3, 4_000


def judge(
    table: RecordTable,
    *,
    knowledge: Knowledge,
    candidates: dict[str, Candidate],
    encoder: Encoder,
    predict: Callable[[Reading], BatchPrediction],
    learn: Callable[[Knowledge, RecordTable], Knowledge],
    seed: int,
) -> budget.HeldOut:
    """Return predictions for recorded queries beside what was recorded.

    Parameters
    ----------
    table
        The records.
    knowledge
        Of the router.
    candidates
        Those that compete, by name.
    encoder
        Of the router.
    predict
        What the router says of queries.
    learn
        What is known after some records, from a start.
    seed
        Of the folds.

    Raises
    ------
    ConfigurationError
        If a candidate that competes was fitted, and has no record here.
    """
    absent = [n for n in knowledge.names if n in candidates and n not in table.names]
    if absent:
        raise ConfigurationError(
            f"there are no records of {absent[0]!r}, which competes: pass records of "
            "every fitted candidate, or remove it first"
        )
    reading = read(table.queries, encoder)
    if not knowledge.context.has_seen(reading).any():
        said = predict(reading)
        columns = [said.candidates.index(name) for name in table.names]
        return budget.judged(table, said.quality[:, columns], said.cost[:, columns])
    start = Knowledge(ContextModel.unfitted(encoder.dimension), prior=knowledge.prior)

    def forecast(train: RecordTable, test: RecordTable) -> tuple[FloatArray, ...]:
        known = learn(start, train)
        own = Forecaster(known, [candidates[name] for name in table.names])
        new = read(test.queries, encoder)
        found = own.forecast(new, known.context.contexts(new))
        return found.quality, found.cost

    return budget.held_out(
        table, forecast, n_folds=_FOLDS, most_queries=_MOST_QUERIES, seed=seed
    )
