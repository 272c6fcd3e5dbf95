"""Logged traffic as arrays: decisions, each with what came of it.

Events are read once, in the order of the log, and joined by decision id. What
is kept is proportional to the decisions in the window.
"""

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.drift import DriftEvent
from mixllm_integrations.core.errors import ConfigurationError
from mixllm_integrations.report.window import STATES, Alarm, State, Traffic
from mixllm_integrations.store import Event, EventStore

__all__ = ["STATES", "State", "Traffic", "read_traffic"]

# All our choice.
_EARLY = 10_000  # events kept that came before their decision
_CLOCKS = timedelta(hours=1)  # by so much the clocks of writers may differ
_SCORES = ("quality", "cost", "uncertainty", "waiting_penalty")
_RANKS = {"binary": 1, "refined": 2}  # which feedback counts if both came
_NUMBERS = (
    "predicted_quality",
    "predicted_cost",
    "propensity",
    "willingness_to_pay",
    "exploration",
    "waiting_weight",
)
_MEASURED = ("cost", "latency_seconds", "time_to_first_token_seconds")
_LATER = ("reward", *_MEASURED)


def read_traffic(
    store: EventStore | Iterable[Event],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Traffic:
    """Return the decisions of a window with what came of them.

    Parameters
    ----------
    store
        A log, or its events in their order. In a log the beginning of the
        window is looked up, not read up to.
    since, until
        Only decisions made at or after the one and before the other; with a time
        zone. Their outcomes and feedback count whenever they came.

    Returns
    -------
    Traffic
        Arrays in the order of the log.

    Raises
    ------
    ConfigurationError
        If a time has no zone, or the window ends before it begins.
    """
    for name, at in (("since", since), ("until", until)):
        if at is not None and at.tzinfo is None:
            raise ConfigurationError(f"{name} must have a time zone, not {at!r}")
    if since is not None and until is not None and until <= since:
        raise ConfigurationError(
            f"the window ends ({until:%F %T}) before it begins ({since:%F %T})"
        )
    reader = _Reader(since, until)
    if isinstance(store, EventStore):
        store = store.events(after=_before(store, since) if since else 0)
    for event in store:
        reader.take(event)
    return reader.traffic()


def _before(store: EventStore, since: datetime) -> int:
    """Return a sequence all events up to which are older than the window."""
    limit = since - _CLOCKS

    def is_old(after: int) -> bool:
        event = next(iter(store.events(after=after, limit=1)), None)
        return event is not None and event.at < limit

    if not is_old(0):
        return 0
    low, high = 0, 1  # the event after `low` is old
    while is_old(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_old(middle) else (low, middle)
    return low


@dataclass(slots=True)
class _Block:
    """Scores of the decisions over the same candidates."""

    columns: NDArray[np.intp]
    rows: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    eligible: bytearray = field(default_factory=bytearray)


class _Reader:
    """Joins events as they come."""

    def __init__(self, since: datetime | None, until: datetime | None) -> None:
        self._since, self._until = since, until
        self._names: dict[str, int] = {}
        self._rows: dict[str, int] = {}
        self._numbers = {name: array("d") for name in (*_NUMBERS, *_LATER, "at")}
        self._chosen, self._state = array("q"), bytearray()
        self._explored, self._rank = bytearray(), bytearray()
        self._blocks: dict[tuple[str, ...], _Block] = {}
        self._early: OrderedDict[tuple[str, str], Event] = OrderedDict()
        self._drifts: Counter[str] = Counter()
        self._alarms: list[Alarm] = []
        self._domains: list[str | None] = []
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._crowded_out = self._unreadable = 0

    def take(self, event: Event) -> None:
        try:
            if event.kind == "decision":
                if self._is_inside(event) and event.decision_id not in self._rows:
                    self._decide(event)
            elif event.kind in ("outcome", "feedback"):
                self._join(event)
            elif str(event.kind) == "drift" and self._is_inside(event):
                self._alarm(event)
        except (AttributeError, LookupError, TypeError, ValueError):
            self._unreadable += 1

    def _is_inside(self, event: Event) -> bool:
        return (self._since is None or event.at >= self._since) and (
            self._until is None or event.at < self._until
        )

    def _decide(self, event: Event) -> None:
        payload, row = event.payload, len(self._chosen)
        name = str(payload["candidate"])
        numbers = [_number(payload.get(key)) for key in _NUMBERS]
        block, values, may = self._scores(payload)
        self._chosen.append(self._place(name))
        for key, number in zip(_NUMBERS, numbers, strict=True):
            self._numbers[key].append(number)
        for key in _LATER:
            self._numbers[key].append(np.nan)
        self._numbers["at"].append(event.at.timestamp())
        self._domains.append(_domain(payload))
        self._state.append(STATES.index("open"))
        self._explored.append(payload.get("explored") is True)
        self._rank.append(0)
        if block is not None:
            block.rows.append(row)
            block.values.extend(values)
            block.eligible.extend(may)
        self._rows[event.decision_id] = row
        self._first, self._last = self._first or event.at, event.at
        for kind in ("outcome", "feedback"):
            early = self._early.pop((event.decision_id, kind), None)
            if early is not None:
                self.take(early)

    def _scores(
        self, payload: Mapping[str, Any]
    ) -> tuple[_Block | None, list[float], list[bool]]:
        scores = payload.get("scores")
        if not isinstance(scores, Mapping):  # a log from before they were written
            return None, [], []
        names = tuple(map(str, scores["candidates"]))
        columns = [[_number(value) for value in scores[key]] for key in _SCORES]
        excluded = payload.get("excluded") or {}
        usable = np.isfinite(columns).all(axis=0)
        if usable.shape != (len(names),):
            raise ValueError("not one score per candidate")
        may = [
            n not in excluded and bool(u) for n, u in zip(names, usable, strict=True)
        ]
        block = self._blocks.get(names)
        if block is None:
            places = np.array([self._place(name) for name in names], dtype=np.intp)
            block = self._blocks[names] = _Block(places)
        return block, [value for column in columns for value in column], may

    def _place(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names))

    def _join(self, event: Event) -> None:
        row = self._rows.get(event.decision_id)
        if row is None:
            self._early[event.decision_id, event.kind] = event
            if len(self._early) > _EARLY:
                self._early.popitem(last=False)
                self._crowded_out += 1
        elif event.kind == "outcome":
            state = _state(event.payload.get("error"))
            self._state[row] = STATES.index(state)
            if state == "answered":
                for key in _MEASURED:
                    self._numbers[key][row] = _number(event.payload.get(key))
        else:
            self._judge(row, event.payload)

    def _alarm(self, event: Event) -> None:
        others = event.payload.get("also") or []
        for told in (event.payload, *others):
            name = str(told.get("candidate", "?"))
            self._drifts[name] += 1
            self._alarms.append(Alarm(event.at, name, _words(name, told)))

    def _judge(self, row: int, payload: Mapping[str, Any]) -> None:
        reward = float(payload["reward"])
        rank = _RANKS.get(payload.get("kind", "refined"), 0)
        if not 0.0 <= reward <= 1.0:
            raise ValueError("a reward must be in [0, 1]")
        if rank > self._rank[row]:
            self._rank[row] = rank
            self._numbers["reward"][row] = reward

    def traffic(self) -> Traffic:
        n, names = len(self._chosen), tuple(self._names)
        scores = {name: np.full((n, len(names)), np.nan) for name in _SCORES}
        eligible = np.zeros((n, len(names)), dtype=np.bool_)
        for block in self._blocks.values():
            width, rows = len(block.columns), np.array(block.rows, dtype=np.intp)
            where = np.ix_(rows, block.columns)
            values = np.frombuffer(block.values).reshape(len(rows), len(_SCORES), width)
            for place, name in enumerate(_SCORES):
                scores[name][where] = values[:, place]
            may = np.frombuffer(bytes(block.eligible), dtype=np.bool_)
            eligible[where] = may.reshape(len(rows), width)
        numbers = {name: np.array(column) for name, column in self._numbers.items()}
        state = np.frombuffer(bytes(self._state), dtype=np.int8)
        numbers["reward"][state == STATES.index("failed")] = np.nan
        numbers["reward"][state == STATES.index("abandoned")] = np.nan
        return Traffic(
            names=names,
            chosen=np.array(self._chosen, dtype=np.intp),
            state=state,
            explored=np.frombuffer(bytes(self._explored), dtype=np.bool_),
            scores=scores,
            eligible=eligible,
            first=self._first,
            last=self._last,
            ids=tuple(self._rows),
            domains=tuple(self._domains),
            drifts=dict(self._drifts),
            alarms=tuple(self._alarms),
            unmatched=len(self._early) + self._crowded_out,
            unreadable=self._unreadable,
            **numbers,
        )


def _domain(payload: Mapping[str, Any]) -> str | None:
    handed_over = payload.get("handed_over")
    found = handed_over.get("domain") if isinstance(handed_over, Mapping) else None
    return found if isinstance(found, str) else None


def _words(name: str, told: Mapping[str, Any]) -> str:
    try:
        said = DriftEvent(
            name,
            told["quantity"],
            float(told["change"]),
            int(told["n_observations"]),
            0,
        )
    except (LookupError, TypeError, ValueError):
        return "it has changed"
    return str(said).split(": ", 1)[-1]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _state(error: object) -> State:
    if error is None:
        return "answered"
    return error if error in ("cached", "abandoned") else "failed"
