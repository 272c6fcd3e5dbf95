"""The arms of what was learned online, from arrays: those that are sound.

Beside `snapshot_online`. A candidate has an arm in every room. If one is damaged
it gets new ones in all of them: each has learned what the others left.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.bandit import DesignMatrices, ResidualHeads
from mixllm_integrations.core.experience import Experience
from mixllm_integrations.core.parts import CHANGED, Damage
from mixllm_integrations.core.policy_gradient import FeedbackHead
from mixllm_integrations.core.settings import RouterSettings

__all__ = ["arms_anew", "fill_arms", "part"]

_ERRORS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def fill_arms(
    experience: Experience,
    settings: RouterSettings,
    state: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    known: Collection[str],
    damage: Damage,
) -> tuple[list[str], dict[str, str]]:
    """Put the arms of all rooms in.

    Parameters
    ----------
    experience
        Without any arms.
    settings
        Of the router.
    state, arrays
        What was saved.
    known
        Who would have arms, should it not be known any more whose they were.
    damage
        Of what was saved.

    Returns
    -------
    list of str
        Who had arms.
    dict
        Whose arms are damaged, and why; some are in.
    """
    order = [state.get(key) for key in ("names", "kept")]
    names, kept = ([str(n) for n in o] if isinstance(o, list) else [] for o in order)
    everyone = [*names, *kept]
    if any(not isinstance(o, list) for o in order) or len(set(everyone)) < len(
        everyone
    ):
        return list(known), dict.fromkeys(known, "whose arms are whose is not known")
    bad: dict[str, str] = {}
    for room in _rooms(settings):
        own, hit = _own_arms(room, arrays, everyone, damage)
        try:
            bad |= _fill(experience, room, settings, own, names=names, kept=kept)
        except _ERRORS as error:
            bad |= dict.fromkeys(everyone, str(error))
        bad |= hit
    return everyone, bad


def arms_anew(
    experience: Experience,
    damaged: Iterable[str],
    *,
    names: Collection[str],
    heads: Collection[str],
) -> None:
    """Give candidates new arms in the place of those that were damaged.

    Parameters
    ----------
    experience
        With all else that was learned.
    damaged
        Whom.
    names
        Who competes; the arms of others are kept for their return.
    heads
        Who has a sound offline head: it stays as sure of itself as its labels
        make it, as far as they are there to be fitted from again.
    """
    designs, residuals = experience.designs, experience.residuals
    head = experience.feedback_head
    rooms = (designs, residuals) if head is None else (designs, residuals, head)
    for name in damaged:
        for room in rooms:
            room.discard(name)
            room.add(name)
        if name in heads:
            table = experience.replay.table([name])
            designs.accumulate(table.contexts, np.isfinite(table.quality), [name])
            residuals.start(name, designs.seen(name))
        for room in () if name in names else rooms:
            room.remove(name)


def _rooms(settings: RouterSettings) -> tuple[str, ...]:
    with_scores = settings.binary_feedback == "policy_gradient"
    return ("designs", "residuals", "feedback")[: 3 if with_scores else 2]


def _fill(
    experience: Experience,
    room: str,
    settings: RouterSettings,
    arrays: Mapping[str, NDArray[Any]],
    *,
    names: Sequence[str],
    kept: Sequence[str],
) -> dict[str, str]:
    """Put the arms of one room in; return which are damaged, and why."""
    dimension, residuals = experience.designs.dimension, experience.residuals
    order: dict[str, Any] = {"names": names, "kept": kept, "dimension": dimension}
    if room == "designs":
        experience.designs = DesignMatrices.from_state(
            arrays, l2=settings.l2, forgetting=settings.forgetting, **order
        )
        return experience.designs.bad
    if room == "residuals":
        experience.residuals = ResidualHeads.from_state(
            arrays,
            l2=residuals.l2,
            offline_share=residuals.offline_share,
            forgetting=settings.forgetting,
            **order,
        )
        return experience.residuals.bad
    head = FeedbackHead.from_state(arrays, seed=settings.seed, **order)
    experience.feedback_head = head
    return head.bad


def _own_arms(
    room: str,
    arrays: Mapping[str, NDArray[Any]],
    everyone: Sequence[str],
    damage: Damage,
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays of a room, and who is hit by what was changed of them."""
    own = part(room, arrays)
    damaged = damage.within(f"online.{room}.")
    if not damaged:
        return own, {}
    arm_of = np.array(own.get("arm_of", ()), dtype=np.int64)
    hit: dict[str, str] = {}
    for name, which in damaged.items():
        for place in _places(name, which, arm_of, own, len(everyone)):
            hit[everyone[place]] = f"online.{room}.{name} {CHANGED}"
    lost = damaged.get("arm_of") or frozenset()
    if lost:  # any arm will do: it is not used
        arm_of[list(lost)] = 0
        own["arm_of"] = arm_of
    return own, hit


def _places(
    name: str,
    which: frozenset[int] | None,
    arm_of: NDArray[np.int64],
    own: Mapping[str, NDArray[Any]],
    n: int,
) -> Iterable[int]:
    """Return the places of those whom a damaged array of a room is about."""
    kind, _, number = name.partition("/")
    if kind in {"arm_of", "outer", "told"}:
        return which or ()
    if kind in {"inner", "middle"}:
        return range(n)
    arms: Collection[int] = which or ()
    if kind in {"tail", "weights"}:
        arms = {int(number)}
    if kind in {"gram", "count"}:
        grams = {int(number)} if number else which or ()
        bases = own.get("base_of", np.zeros(0, np.int64)).tolist()
        arms = {arm for arm, gram in enumerate(bases) if gram in grams}
    return [place for place, arm in enumerate(arm_of.tolist()) if arm in arms]


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
