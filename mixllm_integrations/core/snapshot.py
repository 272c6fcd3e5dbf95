"""What a router knows, as JSON and arrays, and back, part by part.

Beside `persistence`, which moves them to a folder. A candidate whose head is
damaged goes back to its prior with a warning; only a damaged context model, or a
list of candidates that cannot be read, is an error.
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
from mixllm_integrations.core.parts import CHANGED, Damage
from mixllm_integrations.core.predictors.base import Predictor
from mixllm_integrations.core.predictors.heads import CandidateHeads
from mixllm_integrations.core.predictors.selection import KINDS, HeadBank
from mixllm_integrations.core.pricing import CostModel
from mixllm_integrations.core.reading import Reading
from mixllm_integrations.core.settings import RouterSettings
from mixllm_integrations.core.snapshot_arms import part
from mixllm_integrations.core.snapshot_context import (
    context_from,
    context_state,
)
from mixllm_integrations.core.snapshot_online import (
    experience_from,
    experience_state,
    warn_dropped,
)
from mixllm_integrations.core.types import FloatArray, number_between

__all__ = ["knowledge_state", "router_from", "router_state", "without_replay"]

_State = tuple[dict[str, Any], dict[str, NDArray[Any]]]
_HEADS = (
    *("smearing", "mean_quality", "mean_output_tokens", "n_labels", "shift"),
    *("leans", "level", "trust"),
)
_COSTS = ("input_factor", "cost_factor", "fixed_cost")
# What a router does without, and what it does instead.
_SPARE = {
    "exploration": ("what exploring has cost so far", "a new period begins"),
    "spending": ("what was spent of the budget", "a new period begins"),
    "drifts": ("the list of past alarms", "it begins anew"),
    "unlearned": ("how much is new since the last refit", "all of it counts as new"),
    "chance": ("the state of chance", "it is drawn anew"),
    "heard": ("how far logs were heard", "only what comes from now on is learned"),
    "speeds": ("how fast candidates are", "it is measured anew"),
}


def router_state(
    knowledge: Knowledge,
    experience: Experience,
    ledger: DecisionLedger,
    *,
    unheard: bool = False,
) -> _State:
    """Return all that was learned and all that is pending, as JSON and arrays.

    Parameters
    ----------
    knowledge, experience, ledger
        To be saved.
    unheard
        Whether what is pending goes without what a log says as well.
    """
    offline, arrays = knowledge_state(knowledge)
    online, more = experience_state(experience)
    rows, contexts = ledger.state(version=knowledge.version, unheard=unheard)
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
        The candidates that compete. Whatever of theirs is damaged is dropped
        with a warning that says what they go on with.
    probe
        Of any texts: everything that is read is tried on it.
    clock
        Of the ledger.

    Raises
    ------
    StateFormatError
        If the context model is damaged, or parts are missing.
    """
    damage = Damage.of(state)
    try:
        knowledge = _knowledge_from(state["knowledge"], arrays, probe, damage)
        lost = [n for n in state["knowledge"]["names"] if n not in knowledge.names]
        experience = experience_from(
            knowledge,
            settings,
            state["experience"],
            part("online", arrays),
            names=names,
            lost=lost,
            damage=damage,
        )
        dimension = experience.designs.dimension
        ledger = _ledger_from(
            state["pending"], arrays, settings, clock, damage, dimension
        )
        ledger.outdate(lost)
    except (KeyError, TypeError, AttributeError) as error:
        raise StateFormatError(f"the saved state lacks {error}") from error
    for key, (what, instead) in _SPARE.items():
        if (key,) in damage.parts:
            warn_dropped(what, f"it {CHANGED}", instead)
    return knowledge, experience, ledger


def _ledger_from(
    rows: Any,  # noqa: ANN401
    arrays: Mapping[str, NDArray[Any]],
    settings: RouterSettings,
    clock: Callable[[], float],
    damage: Damage,
    dimension: int,
) -> DecisionLedger:
    """Return what is pending; rows that are damaged are left out and counted."""
    hit = damage.arrays.get("pending.contexts") or ()
    terms: dict[str, Any] = {
        "capacity": settings.decision_capacity,
        "max_age_seconds": settings.decision_max_age_seconds,
        "clock": clock,
    }
    try:
        sound: list[Any] = [None if i in hit else r for i, r in enumerate(rows)]
        contexts = arrays["pending.contexts"]
        if len(rows) and contexts.shape[1:] != (dimension,):
            raise ValueError(f"its contexts have shape {contexts.shape}")
        ledger = DecisionLedger.from_state(sound, contexts, **terms)
    except (LookupError, TypeError, ValueError) as error:
        warn_dropped(
            "what awaits its feedback", str(error), "that feedback will teach nothing"
        )
        ledger = DecisionLedger(**terms)
        ledger.unreadable = len(rows) if isinstance(rows, list) else 1
        return ledger
    if ledger.unreadable and damage.files:
        warn_dropped(
            f"what {ledger.unreadable} of {len(rows)} decisions await",
            f"it {CHANGED}",
            "their feedback will teach nothing",
        )
    return ledger


def knowledge_state(knowledge: Knowledge) -> _State:
    """Return what was learned offline, as JSON and arrays.

    Parameters
    ----------
    knowledge
        To be saved.
    """
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
    state: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    probe: Reading,
    damage: Damage,
) -> Knowledge:
    """Return what `knowledge_state` gave, tried on a probe."""
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
            return _with_heads(knowledge, state, arrays, tried, damage)
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


def _with_heads(
    knowledge: Knowledge,
    state: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    contexts: FloatArray,
    damage: Damage,
) -> Knowledge:
    """Return knowledge with those heads that are sound; warn of the others."""
    names = tuple(map(str, state["names"]))
    bad: dict[int, str] = {}
    numbers, factors = (
        [_numbers(f"{room}.{name}", arrays, damage, len(names), bad) for name in which]
        for room, which in (("heads", _HEADS), ("costs", _COSTS))
    )
    counts = numbers[_HEADS.index("n_labels")]
    for i in np.flatnonzero(~(counts >= 0)).tolist():
        bad.setdefault(i, "its labels are none")
    quality, length = (
        _bank_from(target, state, arrays, contexts, damage, len(names), bad)
        for target in ("quality", "length")
    )
    for i in sorted(bad):
        warn_dropped(
            f"what was learned of candidate {names[i]!r}",
            bad[i],
            "it starts anew from its prior",
        )
    kept = [i for i in range(len(names)) if i not in bad]
    if not kept:
        return knowledge
    heads = CandidateHeads(names, quality, length, *numbers)
    return replace(
        knowledge,
        heads=heads.select([names[i] for i in kept]),
        costs=CostModel(*factors).select(kept),
    )


def _numbers(
    name: str,
    arrays: Mapping[str, NDArray[Any]],
    damage: Damage,
    n: int,
    bad: dict[int, str],
) -> NDArray[Any]:
    """Return a number per head; note whose is none."""
    found = np.asarray(arrays.get(name, np.nan))
    if found.shape != (n,) or found.dtype.kind not in "fi":
        found = np.full(n, np.nan)
    for i in np.flatnonzero(~np.isfinite(found)).tolist():
        bad[i] = f"{name} is not finite"
    bad |= dict.fromkeys(damage.arrays.get(name) or (), f"{name} {CHANGED}")
    return found


def _bank_from(
    target: str,
    state: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    contexts: FloatArray,
    damage: Damage,
    n: int,
    bad: dict[int, str],
) -> HeadBank:
    """Return the heads for one target, tried on contexts; note whose are damaged."""
    parts, served, why = [], [], f"there is no head for its {target}"
    about = state.get(target)
    if not isinstance(about, Mapping):
        about, why = {}, f"the list of heads for {target} {CHANGED}"
    for index, kind in enumerate(about.get("kinds", ())):
        start = f"{target}.{index}."
        try:
            columns, predictor, own = _part_from(
                kind, part(start[:-1], arrays), contexts, damage.within(start)
            )
        except (
            *(LookupError, TypeError, ValueError),
            *(AttributeError, ArithmeticError),
        ) as error:
            why = f"{start[:-1]}: {error}"
            continue
        parts.append((columns, predictor))
        served += columns.tolist()
        bad |= {int(columns[i]): f"its head: {reason}" for i, reason in own.items()}
    if len(set(served)) < len(served) or not set(served) <= set(range(n)):
        raise StateFormatError(f"heads for {target} do not serve every candidate once")
    bad |= dict.fromkeys(sorted(set(range(n)) - set(served)), why)
    errors = {
        str(k): number_between(v, "an error")
        for k, v in dict(about.get("errors", {})).items()
    }
    return HeadBank(tuple(parts), n, errors)


def _part_from(
    kind: Any,  # noqa: ANN401
    arrays: dict[str, NDArray[Any]],
    contexts: FloatArray,
    damaged: Mapping[str, frozenset[int] | None],
) -> tuple[NDArray[np.intp], Predictor, dict[int, str]]:
    """Return candidates, their predictor, and which of its columns are damaged."""
    bad: dict[int, str] = {}
    for name, which in damaged.items():
        if which is None:
            raise StateFormatError(f"{name} {CHANGED}")
        bad |= dict.fromkeys(which, f"{name} {CHANGED}")
    columns = np.asarray(arrays.pop("columns"), dtype=np.intp)
    predictor = KINDS[kind].from_state(arrays)
    said = predictor.predict(contexts)
    if said.shape != (len(contexts), len(columns)):
        raise StateFormatError(f"there are not {len(columns)} heads")
    for i in np.flatnonzero(~np.isfinite(said).all(axis=0)).tolist():
        bad.setdefault(i, "it is not finite")
    for i in range(len(columns)):
        own = predictor.select(np.array([i])).state()
        # A leaf's threshold is infinite.
        if any(
            np.isnan(a).any() if n.endswith("threshold") else not np.isfinite(a).all()
            for n, a in own.items()
        ):
            bad.setdefault(i, "it is not finite")
    return columns, predictor, bad
