"""New offline heads from all that was observed: the slow half of learning.

Between two refits the residual heads learn answer by answer; a refit hands what
they learned to heads that can bend. Of a routed query only one answer is known:
what is not is taken as expected now, moved by the surprise at the one that is,
for a query that was harder than it looked was harder for everybody.
"""

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.predictors.heads import CandidateHeads
from mixllm_integrations.core.pricing import CostModel
from mixllm_integrations.core.replay import ReplayTable
from mixllm_integrations.core.types import Candidate, FloatArray

__all__ = ["ENOUGH_FOR_A_HEAD", "refitted"]

ENOUGH_FOR_A_HEAD = 50  # labels that a newcomer needs to get a head (our choice)
# Share of a surprise that is the query's, not the candidate's. Of 0, 0.3 and 0.6,
# the best on two public data sets, training splits alone.
_SHARED = 0.6


def refitted(
    knowledge: Knowledge,
    table: ReplayTable,
    expected: FloatArray,
    candidates: dict[str, Candidate],
    *,
    seed: int,
) -> Knowledge:
    """Return knowledge with new quality heads on the same contexts.

    Parameters
    ----------
    knowledge
        What is known so far; contexts, lengths and costs stay.
    table
        Everything that was observed of all candidates.
    expected
        Quality expected now of every row and candidate, what was learned online
        included, shape of the table's labels.
    candidates
        Those that compete, by name.
    seed
        Decides everything that is drawn.

    Returns
    -------
    Knowledge
        With the next revision. A candidate without a head gets one once it has
        50 labels.

    Notes
    -----
    Our choice; MixLLM fits its heads anew on each observation.
    """
    heads, costs = knowledge.heads, knowledge.costs
    if heads is None or costs is None:
        return knowledge
    filled, labelled = _filled(table, expected)
    kind = knowledge.usual_kind or "auto"
    old = [name for name in heads.names if name in table.names]
    fresh = heads.select(old).refitted(
        table.contexts,
        filled[:, [table.names.index(n) for n in old]],
        labelled[:, [table.names.index(n) for n in old]],
        predictor=kind,
        seed=seed,
    )
    kept = [name for name in heads.names if name not in old]
    fresh = fresh.joined(heads.select(kept)) if kept else fresh
    places = [heads.names.index(n) for n in (*old, *kept)]
    new_costs = costs.select(places)
    counts = labelled.sum(axis=0)
    for place, name in enumerate(table.names):
        if name in heads.names or counts[place] < ENOUGH_FOR_A_HEAD:
            continue
        rows = labelled[:, place]
        own = CandidateHeads.fit(
            [name],
            table.contexts[rows],
            np.clip(table.quality[rows, place, None], 0.0, 1.0),
            table.tokens[rows, place, None],
            predictor=kind,
            seed=seed,
        ).leaning([candidates[name]], table.quality[rows, place, None])
        fresh = fresh.joined(own)
        new_costs = new_costs.joined(CostModel.unknown(1))
    return knowledge.revised(fresh, new_costs)


def _filled(
    table: ReplayTable, expected: FloatArray
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return a label for everything, and where it is a real one."""
    labelled = np.isfinite(table.quality)
    surprise = np.where(labelled, table.quality - expected, 0.0).sum(axis=1)
    shared = _SHARED * surprise / np.maximum(labelled.sum(axis=1), 1)
    guess = np.clip(expected + shared[:, None], 0.0, 1.0)
    return np.where(labelled, np.clip(table.quality, 0.0, 1.0), guess), labelled
