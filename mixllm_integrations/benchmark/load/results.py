"""What was measured under load, as one result that can be written and read."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from mixllm_integrations.benchmark.load.figures import ChaosFigures
from mixllm_integrations.benchmark.load.killing import KillingFigures
from mixllm_integrations.benchmark.load.rates import RateFigures
from mixllm_integrations.benchmark.load.recovery import RecoveryFigures
from mixllm_integrations.benchmark.load.siblings import SiblingFigures
from mixllm_integrations.benchmark.load.soak import SoakFigures

__all__ = ["LoadResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """All that was measured.

    Parameters
    ----------
    form
        ``"long"`` or ``"short"``: a short one shows that all works, its figures
        are of few calls.
    machine, cores
        On what; so many cores were usable, whatever number of workers ran.
    versions, command, seed
        What is needed to repeat it; URLs are left out of the command.
    seconds
        How long each part took, by its name.
    skipped
        What could not be measured, and why.
    rates
        Calls a second, by way and place.
    soak
        What many calls leave behind, by place.
    log
        In what workers that learn from each other keep their log.
    siblings
        How soon they act on what another one was told.
    recovery
        How soon a new one knows what a long log says.
    killing
        What they lose that are killed.
    chaos
        Calls at servers that misbehave.
    """

    form: str
    machine: str
    cores: int
    versions: dict[str, str]
    command: str
    seed: int
    seconds: dict[str, float]
    skipped: dict[str, str]
    rates: tuple[RateFigures, ...] = ()
    soak: tuple[SoakFigures, ...] = ()
    log: str = ""
    siblings: SiblingFigures | None = None
    recovery: RecoveryFigures | None = None
    killing: KillingFigures | None = None
    chaos: ChaosFigures | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain lists, numbers and strings, with its goals."""
        from mixllm_integrations.benchmark.load.goals import goals

        return asdict(self) | {"goals": [asdict(goal) for goal in goals(self)]}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Return what `to_json` was made of.

        Parameters
        ----------
        found
            As read from a file.
        """
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_python(found)
