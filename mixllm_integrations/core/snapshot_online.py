"""What was learned online, as JSON and arrays, and back.

Beside `snapshot`. What is damaged is dropped, with a warning that says what it was,
whose, and what there is instead; all else goes on.
"""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray

from mixllm_integrations.core.checks import number_between
from mixllm_integrations.core.drift import DriftWatch
from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.experience import Experience
from mixllm_integrations.core.exploring import Trials
from mixllm_integrations.core.forecast import Knowledge
from mixllm_integrations.core.parts import CHANGED, Damage
from mixllm_integrations.core.pricing import RunningRatio
from mixllm_integrations.core.reliability import Reliability
from mixllm_integrations.core.replay import Replay
from mixllm_integrations.core.second_looks import SecondLooks
from mixllm_integrations.core.settings import RouterSettings
from mixllm_integrations.core.signals import ImplicitSignals
from mixllm_integrations.core.snapshot_arms import arms_anew, fill_arms, part

__all__ = ["experience_from", "experience_state", "warn_dropped"]

_State = tuple[dict[str, Any], dict[str, NDArray[Any]]]
_Value = TypeVar("_Value")
_ERRORS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
# What a room is about: all of it, and one of them; and what there is instead.
_ROOMS = (
    ("drift", "changes", "changes of candidate", "it is watched anew"),
    ("trials", "newcomers", "the trial of candidate", "there is no trial"),
    ("looks", "whoever fell", "the fall of candidate", "there is no second look"),
    ("reliability", "all sources", "source", "it is learned anew"),
    ("signals", "all signals", "signals of candidate", "they are counted anew"),
)


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
        "looks": experience.looks.state(),
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
    damage: Damage,
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
    damage
        Of what was saved.
    """
    experience = Experience(knowledge, settings)
    heads = _labels_of_heads(knowledge)
    known = list(dict.fromkeys((*names, *heads)))
    everyone, bad = fill_arms(
        experience, settings, state, arrays, known=known, damage=damage
    )
    reader = _Reader(experience, state, damage, lost)
    bad |= reader.fill_numbers(everyone, heads)
    reader.fill_watches(settings)
    reader.fill_replay(part("replay", arrays), has_heads=bool(heads))
    fallen = {name: why for name, why in bad.items() if name not in lost}
    for name, why in fallen.items():
        if name in heads:
            whose, instead = f"online of candidate {name!r}", "its fitted head stays"
        else:
            whose, instead = f"of candidate {name!r}", "it starts anew from its prior"
        warn_dropped(f"what was learned {whose}", why, instead)
        experience.bases.pop(name, None)
        experience.drift.add(name)
        experience.drift.reset(name, "quality")
    arms_anew(experience, fallen, names=names, heads=heads)
    experience.discard(lost)
    for name in names:
        if name not in experience.designs.names:
            experience.add(name)
        experience.complete(name)
    return experience


class _Reader:
    """Reads what was learned online beside the arms, table by table."""

    def __init__(
        self,
        experience: Experience,
        state: Mapping[str, Any],
        damage: Damage,
        lost: Collection[str],
    ) -> None:
        self._experience, self._state = experience, state
        self._damage, self._lost = damage, lost

    def fill_numbers(
        self, everyone: Sequence[str], heads: Mapping[str, float]
    ) -> dict[str, str]:
        """Put in what is a number or a ratio of each candidate.

        Returns whose arms mean nothing without a number that is damaged, and why.
        """
        experience = self._experience
        experience.lengths, wrong = self._table("lengths", everyone, _ratio_from)
        self._begin_anew(experience.lengths, wrong, "lengths")
        experience.costs, wrong = self._table("costs", everyone, _ratio_from)
        self._begin_anew(experience.costs, wrong, "bills")
        experience.labels, wrong = self._table("labels", everyone, _label_count)
        for name, why in wrong.items():
            count = experience.labels[name] = heads.get(name, 0.0)
            instead = f"{count:g} is taken, as many as its head has"
            self._warn(
                name, f"the number of labels of candidate {name!r}", why, instead
            )
        experience.levels, bad = self._table("levels", everyone, _level)
        experience.levels |= dict.fromkeys(bad, 0.0)
        has_bases = isinstance(self._state.get("bases"), Mapping)
        without = [] if has_bases else [n for n in everyone if n not in heads]
        experience.bases, wrong = self._table("bases", without, _base)
        for name in heads.keys() & wrong.keys():  # it is not used
            what, why = f"the base of candidate {name!r}", wrong.pop(name)
            self._warn(name, what, why, "its head needs none")
        return bad | wrong

    def fill_watches(self, settings: RouterSettings) -> None:
        """Put in what is known of changes, newcomers, sources and signals."""
        experience = self._experience
        readers: dict[str, Callable[[Any], Any]] = {
            "drift": DriftWatch.from_state,
            "trials": Trials.from_state,
            "looks": SecondLooks.from_state,
            "reliability": Reliability.from_state,
            "signals": lambda state: _signals_from(state, settings),
        }
        for key, all_of_it, of, instead in _ROOMS:
            hit = [p[-1] for p in self._damage.parts if p[:2] == ("experience", key)]
            try:
                room = readers[key](self._state[key])
            except _ERRORS as error:
                why = f"it {CHANGED}" if hit else _why(error)
                warn_dropped(f"what was learned of {all_of_it}", why, instead)
                continue
            setattr(experience, key, room)
            for name, why in room.bad.items():
                if key != "reliability" and name in self._lost:
                    continue
                whose, places = f"{of} {name!r}", {name, f"binary/{name}"}
                if key == "signals" and name == "effects":
                    whose, places = "what signals say", {"gram", "moment"}
                is_hit = not places.isdisjoint(hit)
                why = f"it {CHANGED}" if is_hit else why
                warn_dropped(f"what was learned of {whose}", why, instead)

    def fill_replay(
        self, arrays: Mapping[str, NDArray[Any]], *, has_heads: bool
    ) -> None:
        """Put in what heads are fitted from again; a compact folder has none."""
        experience, place = self._experience, ("experience", "replay")
        experience.replay.is_whole = not has_heads
        hit = self._damage.within("online.replay.")
        try:
            state = self._state["replay"]
            if state is None and place not in self._damage.parts:
                return
            if state is None or hit:
                raise StateFormatError(f"{', '.join(sorted(hit)) or 'it'} {CHANGED}")
            experience.replay = Replay.from_state(
                state, arrays, dimension=experience.designs.dimension
            )
        except _ERRORS as error:
            experience.replay.is_whole = False
            warn_dropped(
                "the replay of labels and feedback",
                _why(error),
                "`refit` does nothing until `fit` was called; the heads stay",
            )

    def _table(
        self, key: str, everyone: Sequence[str], read: Callable[[Any], _Value]
    ) -> tuple[dict[str, _Value], dict[str, str]]:
        """Return what a table has of everyone, and of whom it has none, and why."""
        found: dict[str, _Value] = {}
        wrong: dict[str, str] = {}
        rows = self._state.get(key)
        rows = rows if isinstance(rows, Mapping) else {}
        for name in dict.fromkeys((*rows, *everyone)):
            try:
                found[name] = read(rows[name])
            except _ERRORS as error:
                is_changed = ("experience", key, name) in self._damage.parts
                wrong[name] = f"{key} {CHANGED}" if is_changed else _why(error)
        return found, wrong

    def _begin_anew(
        self, ratios: dict[str, RunningRatio], wrong: Mapping[str, str], what: str
    ) -> None:
        for name, why in wrong.items():
            ratios[name] = RunningRatio()
            whose = f"what was learned online of {what} of candidate {name!r}"
            self._warn(name, whose, why, "it is learned anew")

    def _warn(self, name: str, what: str, why: str, instead: str) -> None:
        if name not in self._lost:  # all of it is gone
            warn_dropped(what, why, instead)


def _labels_of_heads(knowledge: Knowledge) -> dict[str, float]:
    """Return how many labels stand behind each candidate's offline head."""
    if knowledge.heads is None:
        return {}
    counts = knowledge.heads.n_labels.tolist()
    return {n: float(count) for n, count in zip(knowledge.names, counts, strict=True)}


def _signals_from(
    state: Mapping[str, Any], settings: RouterSettings
) -> ImplicitSignals:
    if not isinstance(state["wanted"], list):
        raise StateFormatError("which signals were counted is not known any more")
    return ImplicitSignals.from_state(state, wanted=settings.implicit_signals)


def _label_count(value: object) -> float:
    return number_between(value, "it", high_is_allowed=False)


def _level(value: object) -> float:
    return number_between(value, "its level", low=-1.0, high=1.0)


def _base(value: object) -> float:
    return number_between(value, "its expected quality", high=1.0)


def _ratio_rows(ratios: Mapping[str, RunningRatio]) -> dict[str, list[float]]:
    return {name: [r.real, r.predicted, r.count, r.prior] for name, r in ratios.items()}


def _ratio_from(row: Sequence[object]) -> RunningRatio:
    real, predicted, count, prior = (
        number_between(number, "a number of it", high_is_allowed=False)
        for number in row
    )
    if count < (predicted > 0):
        raise StateFormatError("it was learned from no outcome")
    return RunningRatio(real, predicted, int(count), prior)


def _why(error: Exception) -> str:
    is_told = isinstance(error, ValueError) and str(error)
    return str(error) if is_told else f"{type(error).__name__}: {error}"


def warn_dropped(what: str, why: str, instead: str) -> None:
    """Warn that something is not what it was when it was saved.

    Parameters
    ----------
    what
        Of what, and whose.
    why
        What is wrong with it.
    instead
        What there is now.
    """
    warnings.warn(
        f"{what} is damaged ({why}) and was dropped; {instead}",
        RuntimeWarning,
        stacklevel=2,
    )
