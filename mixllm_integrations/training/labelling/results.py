"""What came of a run, for people and for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixllm_integrations.core.types import RoutingRecord
from mixllm_integrations.training.labelling.adaptive import half_width

__all__ = ["CandidateLabels", "Collection", "LabellingFailure", "summed_up"]


@dataclass(frozen=True, slots=True)
class LabellingFailure:
    """One answer that is missing.

    Parameters
    ----------
    prompt
        Its number among the prompts that were given, from 1.
    candidate
        Who was asked.
    reason
        The kind of error and its HTTP status; never its message.
    """

    prompt: int
    candidate: str
    reason: str


@dataclass(frozen=True, slots=True)
class CandidateLabels:
    """What is known of one candidate now.

    Parameters
    ----------
    records
        How many.
    quality
        Their mean quality; ``None`` without any.
    half_width
        Of the 95 % interval of that mean, for traffic like the sample.
    cost
        USD of the answers in the records.
    """

    records: int
    quality: float | None
    half_width: float
    cost: float


@dataclass(frozen=True, slots=True)
class Collection:
    """What came of a run.

    Parameters
    ----------
    file
        Where the records are.
    written
        How many this run has added.
    records
        All that the file holds now.
    candidates
        What is known of each.
    failures
        What is missing, and why. Run again to try once more.
    not_asked
        Answers that were left out: by `Adaptive`, or as the money ended.
    limit_reached
        Whether the spending limit ended the run.
    spent
        USD that this run has spent, judges included; of calls that were lost as
        much as they may have cost.
    spent_in_all
        USD that all runs with this workbook have spent.
    """

    file: Path
    written: int
    records: tuple[RoutingRecord, ...]
    candidates: Mapping[str, CandidateLabels]
    failures: tuple[LabellingFailure, ...]
    not_asked: int
    limit_reached: bool
    spent: float
    spent_in_all: float

    @property
    def is_complete(self) -> bool:
        """Whether nothing failed, and money did not end the run."""
        return not self.failures and not self.limit_reached

    def as_json(self) -> dict[str, Any]:
        """Return all of it but the records, as JSON can hold it."""
        return {
            "file": str(self.file),
            "written": self.written,
            "records": len(self.records),
            "candidates": {n: asdict(c) for n, c in self.candidates.items()},
            "failures": [asdict(failure) for failure in self.failures],
            "not_asked": self.not_asked,
            "limit_reached": self.limit_reached,
            "spent_usd": self.spent,
            "spent_in_all_usd": self.spent_in_all,
        }


def summed_up(
    names: Sequence[str], records: Sequence[RoutingRecord]
) -> dict[str, CandidateLabels]:
    """Return what is known of each candidate.

    Parameters
    ----------
    names
        The candidates.
    records
        Of all of them.
    """
    found = {}
    for name in names:
        own = [record for record in records if record.candidate == name]
        grades = [float(record.quality) for record in own]
        found[name] = CandidateLabels(
            len(own),
            sum(grades) / len(grades) if grades else None,
            half_width(grades),
            sum(record.cost or 0.0 for record in own),
        )
    return found
