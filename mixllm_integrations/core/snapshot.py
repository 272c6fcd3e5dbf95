"""What a router knows, as JSON and arrays, and back, part by part.

Beside `persistence`, which moves them to a folder. A candidate whose part is
damaged is dropped from what was learned with a warning, never the router.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.experience import Experience
from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.ledger import DecisionLedger
from mixllm_integrations.core.predictors.heads import CandidateHeads
from mixllm_integrations.core.predictors.selection import KINDS, HeadBank
from mixllm_integrations.core.pricing import CostModel
from mixllm_integrations.core.reading import Reading
from mixllm_integrations.core.settings import RouterSettings
from mixllm_integrations.core.snapshot_context import (
    context_from,
    context_state,
)
from mixllm_integrations.core.snapshot_online import (
    experience_from,
    experience_state,
    part,
    warn_dropped,
)
from mixllm_integrations.core.types import FloatArray

__all__ = ["router_from", "router_state", "without_replay"]

_State = tuple[dict[str, Any], dict[str, NDArray[Any]]]
_HEADS = (
    *("smearing", "mean_quality", "mean_output_tokens", "n_labels", "shift"),
    *("leans", "level", "trust"),
)
_COSTS = ("input_factor", "cost_factor", "fixed_cost")


def router_state(
    knowledge: Knowledge, experience: Experience, ledger: DecisionLedger
) -> _State:
    """Return all that was learned and all that is pending, as JSON and arrays.

    Parameters
    ----------
    knowledge, experience, ledger
        To be saved.
    """
    offline, arrays = _knowledge_state(knowledge)
    online, more = experience_state(experience)
    rows, contexts = ledger.state(version=knowledge.version)
    state = {"knowledge": offline, "experience": online, "pending": rows}
    arrays |= {f"online.{name}": array for name, array in more.items()}
    arrays["pending.contexts"] = contexts
    return state, arrays


def without_replay(
    state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> _State:
    """Return a state without what heads are fitted from again.

    Parameters
    ----------
    state, arrays
        What `router_state` returned.
    """
    experience = {**state["experience"], "replay": None}
    kept = {n: a for n, a in arrays.items() if not n.startswith("online.replay.")}
    return {**state, "experience": experience}, kept


def router_from(
    state: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    settings: RouterSettings,
    *,
    names: Sequence[str],
    probe: Reading,
    clock: Callable[[], float],
) -> tuple[Knowledge, Experience, DecisionLedger]:
    """Return what `router_state` gave.

    Parameters
    ----------
    state, arrays
        What it returned.
    settings
        Of the router.
    names
        The candidates that compete; one whose statistics are damaged starts
        anew, with a warning.
    probe
        Of any texts: everything that is read is tried on it.
    clock
        Of the ledger.

    Raises
    ------
    StateFormatError
        If parts are missing or do not fit each other.
    """
    try:
        knowledge = _knowledge_from(state["knowledge"], arrays, probe)
        lost = [n for n in state["knowledge"]["names"] if n not in knowledge.names]
        experience = experience_from(
            knowledge,
            settings,
            state["experience"],
            part("online", arrays),
            names=names,
            lost=lost,
        )
        ledger = DecisionLedger.from_state(
            state["pending"],
            arrays["pending.contexts"],
            capacity=settings.decision_capacity,
            max_age_seconds=settings.decision_max_age_seconds,
            clock=clock,
        )
        ledger.outdate(lost)
    except (KeyError, TypeError, AttributeError) as error:
        raise StateFormatError(f"the saved state lacks {error}") from error
    return knowledge, experience, ledger


def _knowledge_state(knowledge: Knowledge) -> _State:
    """Return what was learned offline, as JSON and arrays."""
    heads, costs = knowledge.heads, knowledge.costs
    state, arrays = context_state(knowledge.context)
    state |= {"version": knowledge.version, "names": []}
    state["revision"] = knowledge.revision
    if heads is not None and costs is not None:
        state["names"] = list(heads.names)
        arrays |= {f"heads.{n}": getattr(heads, n) for n in _HEADS}
        arrays |= {f"costs.{n}": getattr(costs, n) for n in _COSTS}
        for target in ("quality", "length"):
            bank: HeadBank = getattr(heads, target)
            state[target] = {
                "kinds": [predictor.kind for _, predictor in bank.parts],
                "errors": dict(bank.errors),
            }
            for index, (columns, predictor) in enumerate(bank.parts):
                start = f"{target}.{index}."
                arrays[f"{start}columns"] = columns.astype(np.int64)
                arrays |= {f"{start}{n}": a for n, a in predictor.state().items()}
    return state, arrays


def _knowledge_from(
    state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], probe: Reading
) -> Knowledge:
    """Return what `_knowledge_state` gave, tried on a probe."""
    try:
        context = context_from(state, arrays)
        with np.errstate(all="ignore"):
            tried = context.contexts(probe)
            if not np.isfinite(tried).all():
                raise StateFormatError("a context that it gives is not finite")
            knowledge = Knowledge(
                context,
                version=int(state["version"]),
                revision=int(state["revision"]),
            )
            if not state["names"]:
                return knowledge
            return _with_heads(knowledge, state, arrays, tried)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
    ) as error:
        raise StateFormatError(
            f"what was learned cannot be read ({type(error).__name__}: {error}): "
            "restore the folder from a copy, or fit again"
        ) from error


def _bank_from(
    target: str, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], n: int
) -> HeadBank:
    parts = []
    for index, kind in enumerate(state[target]["kinds"]):
        start = f"{target}.{index}."
        own = {
            k.removeprefix(start): a for k, a in arrays.items() if k.startswith(start)
        }
        columns = np.asarray(own.pop("columns"), dtype=np.intp)
        parts.append((columns, KINDS[kind].from_state(own)))
    served = np.sort(np.concatenate([columns for columns, _ in parts]))
    if not np.array_equal(served, np.arange(n)):
        raise StateFormatError(f"heads for {target} do not serve every candidate once")
    return HeadBank(tuple(parts), n, dict(state[target]["errors"]))


def _with_heads(
    knowledge: Knowledge,
    state: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    contexts: FloatArray,
) -> Knowledge:
    names = tuple(state["names"])
    n = len(names)
    numbers = [np.asarray(arrays[f"heads.{name}"]) for name in _HEADS]
    factors = [np.asarray(arrays[f"costs.{name}"]) for name in _COSTS]
    quality, length = (_bank_from(t, state, arrays, n) for t in ("quality", "length"))
    good = np.isfinite(np.stack([*numbers, *factors])).all(axis=0)
    for bank in (quality, length):
        said = bank.predict(contexts)
        if said.shape != (len(contexts), n) or good.shape != (n,):
            raise StateFormatError(f"there are not {n} heads")
        good &= np.isfinite(said).all(axis=0) & _isfinite(bank)
    kept = np.flatnonzero(good).tolist()
    for i in np.flatnonzero(~good):
        warn_dropped(names[i], "its heads are not finite")
    if not kept:
        return knowledge
    heads = CandidateHeads(names, quality, length, *numbers)
    return replace(
        knowledge,
        heads=heads.select([names[i] for i in kept]),
        costs=CostModel(*factors).select(kept),
    )


def _isfinite(bank: HeadBank) -> NDArray[np.bool_]:
    """Return whether all that each candidate's head is made of is finite."""
    good = np.ones(bank.n_candidates, dtype=np.bool_)
    for columns, predictor in bank.parts:
        for index, column in enumerate(columns):
            own = predictor.select(np.array([index])).state()
            # A leaf's threshold is infinite.
            good[column] = not any(
                np.isnan(a).any()
                if n.endswith("threshold")
                else not np.isfinite(a).all()
                for n, a in own.items()
            )
    return good
