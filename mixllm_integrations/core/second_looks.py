"""Beside `exploring`: whom an alarm put down is looked at again now and then.

A model that got worse gets no traffic, so nobody would notice that it has
recovered. Takes no lock: the router holds one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mixllm_integrations.core.checks import number_between

__all__ = ["SecondLooks"]

_FIRST_PAUSE, _LONGEST_PAUSE = 500, 16_000  # decisions, doubled after each look
_MOST_HEARD = 200  # rewards of one look
_DISAPPOINTED = 1.0  # points of quality, all in all
_MOST_UNHEARD = 60  # decisions since its last reward


@dataclass(slots=True)
class _Fallen:
    """Somebody whose quality fell: by how much, and when to look again."""

    by: float  # points of quality
    pause: int = _FIRST_PAUSE
    due: int = _FIRST_PAUSE  # decisions until the next look; 0: it is on
    heard: int = 0
    unheard: int = 0
    hope: float = 0.0  # how much better than half-way it has been, all in all


class SecondLooks:
    """Candidates that an alarm put down, each with a bonus for a while.

    Attributes
    ----------
    bad
        After `from_state`: which candidates were left out, and why.

    Notes
    -----
    Our choice. A look gives a candidate back what it has lost of quality, so it
    is asked what it was asked before. What its rewards lie above half of that is
    added up: the sum rises if it has recovered, until the detector of `DriftWatch`
    raises an alarm, and falls if it has not. At −1 point the look is over, and the
    next one comes after twice as many decisions: 500, 1,000, …, 16,000.

    Examples
    --------
    >>> looks = SecondLooks()
    >>> looks.fell("a", 0.3)
    >>> for _ in range(500):
    ...     looks.decided("b")
    >>> looks.bonuses
    {'a': 0.3}
    """

    def __init__(self) -> None:
        self._fallen: dict[str, _Fallen] = {}
        self.bonuses: dict[str, float] = {}  # of those that are looked at now
        self.bad: dict[str, str] = {}

    def fell(self, name: str, by: float) -> None:
        """Put off the next look at somebody that got worse.

        Parameters
        ----------
        name
            Whom.
        by
            How much, in points of quality; what it fell by before counts, too.
        """
        before = self._fallen.get(name)
        lost = by if before is None else before.by + by
        self._fallen[name] = _Fallen(min(lost, 1.0))
        self.bonuses.pop(name, None)

    def decided(self, name: str) -> None:
        """Count a decision.

        Parameters
        ----------
        name
            Who was chosen.
        """
        for who, fallen in self._fallen.items():
            if fallen.due:
                fallen.due -= 1
                self._show(who, fallen)
            elif who == name:
                fallen.unheard += 1
                if fallen.unheard >= _MOST_UNHEARD:
                    self._put_off(who, fallen)

    def taught(self, name: str, *, surprise: float) -> None:
        """Note that something was learned of somebody's answer.

        Parameters
        ----------
        name
            Of whom; nothing happens if it is not looked at.
        surprise
            Reward minus what is expected of it by now, without the bonus.
        """
        if name not in self.bonuses:
            return
        fallen = self._fallen[name]
        fallen.heard += 1
        fallen.unheard = 0
        fallen.hope += surprise - fallen.by / 2.0
        if fallen.hope <= -_DISAPPOINTED or fallen.heard >= _MOST_HEARD:
            self._put_off(name, fallen)

    def rename(self, old: str, new: str) -> None:
        """Go on under another name.

        Parameters
        ----------
        old, new
            Its names; if the old one had fallen, the new one's is forgotten.
        """
        if old in self._fallen and old != new:
            self.discard(new)
            self._fallen[new] = self._fallen.pop(old)
            self.bonuses.pop(old, None)
            self._show(new, self._fallen[new])

    def discard(self, name: str) -> None:
        """Forget that somebody fell, for example since it rose again.

        Parameters
        ----------
        name
            Whom; nothing happens if it never fell.
        """
        self._fallen.pop(name, None)
        self.bonuses.pop(name, None)

    def state(self) -> dict[str, dict[str, Any]]:
        """Return who fell, by name, as JSON can hold it, for `from_state`."""
        return {name: asdict(fallen) for name, fallen in self._fallen.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "SecondLooks":
        """Return what `state` gave, without what is damaged.

        Parameters
        ----------
        state
            What `state` returned.

        Returns
        -------
        SecondLooks
            `bad` says who was left out, and why.
        """
        looks = cls()
        for name, row in state.items():
            try:
                by = number_between(row["by"], "by", high=1.0)
                pause = number_between(row["pause"], "pause", high=_LONGEST_PAUSE)
                due = number_between(row["due"], "due", high=_LONGEST_PAUSE)
                heard = number_between(row["heard"], "heard", high=_MOST_HEARD)
                unheard = number_between(row["unheard"], "unheard", high=_MOST_UNHEARD)
                hope = number_between(
                    row["hope"], "hope", low=-_DISAPPOINTED, high=_MOST_HEARD
                )
            except (LookupError, TypeError, ValueError) as error:
                looks.bad[name] = f"{type(error).__name__}: {error}"
                continue
            pauses, told = (int(max(pause, 1)), int(due)), (int(heard), int(unheard))
            looks._fallen[name] = _Fallen(by, *pauses, *told, hope)
            looks._show(name, looks._fallen[name])
        return looks

    def _put_off(self, name: str, fallen: _Fallen) -> None:
        fallen.pause = fallen.due = min(2 * fallen.pause, _LONGEST_PAUSE)
        fallen.heard, fallen.unheard, fallen.hope = 0, 0, 0.0
        self.bonuses.pop(name, None)

    def _show(self, name: str, fallen: _Fallen) -> None:
        if not fallen.due:
            self.bonuses[name] = fallen.by
