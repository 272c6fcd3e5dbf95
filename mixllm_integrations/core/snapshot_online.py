"""What was learned online, as JSON and arrays, and back.

Beside `snapshot`. A candidate whose part is damaged starts anew with a warning;
the others go on.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.bandit import DesignMatrices, ResidualHeads
from mixllm_integrations.core.drift import DriftWatch
from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.experience import Experience
from mixllm_integrations.core.exploring import Trials
from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.policy_gradient import FeedbackHead
from mixllm_integrations.core.pricing import RunningRatio
from mixllm_integrations.core.reliability import Reliability
from mixllm_integrations.core.replay import Replay
from mixllm_integrations.core.settings import RouterSettings
from mixllm_integrations.core.signals import ImplicitSignals

__all__ = ["experience_from", "experience_state", "part", "warn_dropped"]

_State = tuple[dict[str, Any], dict[str, NDArray[Any]]]


def experience_state(experience: Experience) -> _State:
    """Return what was learned online, as JSON and arrays.

    Parameters
    ----------
    experience
        To be saved.
    """
    replay, replayed = experience.replay.state()
    state: dict[str, Any] = {
        "names": list(experience.designs.names),
        "kept": list(experience.designs.kept),
        "lengths": _ratio_rows(experience.lengths),
        "costs": _ratio_rows(experience.costs),
        "labels": dict(experience.labels),
        "levels": dict(experience.levels),
        "bases": dict(experience.bases),
        "drift": experience.drift.state(),
        "reliability": experience.reliability.state(),
        "signals": experience.signals.state(),
        "trials": experience.trials.state(),
        "replay": replay,
    }
    parts = {
        "designs": experience.designs.state(),
        "residuals": experience.residuals.state(),
        "replay": replayed,
    }
    if experience.feedback_head is not None:
        parts["feedback"] = experience.feedback_head.state()
    arrays = {f"{p}.{name}": a for p, own in parts.items() for name, a in own.items()}
    return state, arrays


def experience_from(
    knowledge: Knowledge,
    settings: RouterSettings,
    state: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    names: Sequence[str],
    lost: Collection[str],
) -> Experience:
    """Return what `experience_state` gave, without that of the lost heads.

    Parameters
    ----------
    knowledge, settings
        Of the router.
    state, arrays
        What was saved.
    names
        The candidates that compete.
    lost
        Candidates whose offline heads were damaged: they start anew.

    Raises
    ------
    StateFormatError
        If it cannot be told which part belongs to whom.
    """
    experience = Experience(knowledge, settings)
    try:
        bad = _fill_arms(experience, settings, state, arrays)
        experience.lengths = _ratios_from(state["lengths"])
        experience.costs = _ratios_from(state["costs"])
        experience.labels = _numbers_from(state["labels"])
        experience.levels = _numbers_from(state["levels"])
        experience.bases = _numbers_from(state["bases"])
        experience.drift = DriftWatch.from_state(state["drift"])
        experience.reliability = Reliability.from_state(state["reliability"])
        experience.signals = ImplicitSignals.from_state(
            state["signals"], wanted=settings.implicit_signals
        )
        experience.trials = Trials.from_state(state["trials"])
        experience.replay.is_whole = not knowledge.names
        if state["replay"] is not None:
            experience.replay = Replay.from_state(
                state["replay"],
                part("replay", arrays),
                dimension=knowledge.context.dimension,
            )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StateFormatError(
            f"what was learned online cannot be read ({type(error).__name__}: {error})"
        ) from error
    for name in bad:
        if name not in lost:
            warn_dropped(name, bad[name])
    watches = (experience.drift, experience.trials)
    for room in (experience.reliability, experience.signals, *watches):
        for what, why in room.bad.items():
            warn_dropped(what, str(why))
    experience.discard({**bad, **dict.fromkeys(lost)})
    for name in names:
        if name not in experience.designs.names:
            experience.add(name)
        experience.complete(name)
    return experience


def _fill_arms(
    experience: Experience,
    settings: RouterSettings,
    state: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> dict[str, str]:
    """Put the arms of all rooms in; return which are damaged, and why."""
    names, kept = list(state["names"]), list(state["kept"])
    residuals, dimension = experience.residuals, experience.designs.dimension
    experience.designs = DesignMatrices.from_state(
        part("designs", arrays),
        dimension=dimension,
        l2=settings.l2,
        forgetting=settings.forgetting,
        names=names,
        kept=kept,
    )
    experience.residuals = ResidualHeads.from_state(
        part("residuals", arrays),
        dimension=dimension,
        l2=residuals.l2,
        offline_share=residuals.offline_share,
        forgetting=settings.forgetting,
        names=names,
        kept=kept,
    )
    bad = {**experience.designs.bad, **experience.residuals.bad}
    if experience.feedback_head is not None:
        experience.feedback_head = FeedbackHead.from_state(
            part("feedback", arrays),
            dimension=dimension,
            seed=settings.seed,
            names=names,
            kept=kept,
        )
        bad |= experience.feedback_head.bad
    return bad


def _numbers_from(rows: Mapping[str, Any]) -> dict[str, float]:
    """Return numbers by name, without those that are none."""
    found = {name: float(value) for name, value in rows.items()}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _ratio_rows(ratios: Mapping[str, RunningRatio]) -> dict[str, list[float]]:
    return {name: [r.real, r.predicted, r.count, r.prior] for name, r in ratios.items()}


def _ratios_from(rows: Mapping[str, Sequence[Any]]) -> dict[str, RunningRatio]:
    return {name: _ratio_from(name, *numbers) for name, numbers in rows.items()}


def _ratio_from(
    name: str, real: float, predicted: float, count: int, prior: float
) -> RunningRatio:
    sums = float(real), float(predicted), float(prior)
    if not (np.isfinite(sums).all() and min(sums) >= 0 and count >= (sums[1] > 0)):
        warn_dropped(name, "its lengths or costs are none")
        return RunningRatio()
    return RunningRatio(*sums[:2], int(count), sums[2])


def part(name: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of one part, by their names in it.

    Parameters
    ----------
    name
        Of the part.
    arrays
        Of all parts.
    """
    start = f"{name}."
    return {k.removeprefix(start): a for k, a in arrays.items() if k.startswith(start)}


def warn_dropped(name: str, why: str) -> None:
    """Warn that a candidate starts anew.

    Parameters
    ----------
    name
        Whom.
    why
        What is wrong with what was saved of it.
    """
    warnings.warn(
        f"what was learned of candidate {name!r} is damaged ({why}) and was dropped; "
        "it starts anew from priors",
        RuntimeWarning,
        stacklevel=2,
    )
