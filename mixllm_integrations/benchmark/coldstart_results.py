"""What a router reached with few labels or none: rows, summaries, tables."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

__all__ = [
    "FULL",
    "ColdResult",
    "ColdRun",
    "Knowledge",
    "NewcomerRun",
    "print_coldstart",
]

FULL = -1  # stands for all labels of the training split
Knowledge = Literal["price", "prior_quality"]
_Run = TypeVar("_Run")
_DIGITS = 6
_TITLES = {"price": "price only", "prior_quality": "prior_quality"}


@dataclass(frozen=True, slots=True)
class ColdRun:
    """A router on one split of one data set.

    Parameters
    ----------
    data, seed
        Which split.
    knowledge
        What was known of each candidate beforehand.
    prior
        ``"others"``: learned from the other data sets, ``"none"``: constant.
    n_labels
        Labelled queries, each with the labels of all candidates; `FULL`: all.
    aiq, mse
        Of the router.
    mix_aiq
        Of the convex mix of single candidates, fitted on all labels.
    """

    data: str
    seed: int
    knowledge: Knowledge
    prior: str
    n_labels: int
    aiq: float
    mse: float
    mix_aiq: float


@dataclass(frozen=True, slots=True)
class NewcomerRun:
    """A router that one candidate joins after the others were fitted.

    Parameters
    ----------
    data, seed
        Which split.
    newcomer
        Who joins.
    knowledge
        What was known of the newcomer beforehand.
    n_labels
        Of the newcomer; `FULL`: all.
    aiq
        Of the router with the newcomer.
    aiq_without
        Of the router without it.
    mse, constant_mse
        Of the newcomer's predicted quality, and of its mean quality in the
        training split said of every query.
    """

    data: str
    seed: int
    newcomer: str
    knowledge: Knowledge
    n_labels: int
    aiq: float
    aiq_without: float
    mse: float
    constant_mse: float


@dataclass(frozen=True, slots=True)
class ColdResult:
    """All runs of one benchmark of the start without labels.

    Parameters
    ----------
    data, seeds
        What was measured.
    revisions
        Of the prior used on each data set.
    strengths
        Of that prior, cold and fitted.
    command, versions
        What is needed to repeat it.
    runs, newcomers
        What was found.
    """

    data: tuple[str, ...]
    seeds: tuple[int, ...]
    revisions: tuple[str, ...]
    strengths: tuple[tuple[float, float], ...]
    command: str
    versions: dict[str, str]
    runs: tuple[ColdRun, ...] = field(repr=False)
    newcomers: tuple[NewcomerRun, ...] = field(repr=False)

    def summary(self) -> list[dict[str, Any]]:
        """Return mean and spread over the seeds, and the share of the gain.

        The share is (AIQ − AIQ of the mix) / (AIQ of all labels − AIQ of the
        mix), of the means over the seeds.
        """
        full = {
            data: _mean(r.aiq for r in self.runs if r.data == data and _is_full(r))
            for data in self.data
        }
        rows = []
        for key, runs in _grouped(
            self.runs, lambda r: (r.data, r.knowledge, r.prior, r.n_labels)
        ).items():
            data, knowledge, prior, n_labels = key
            mix = _mean(r.mix_aiq for r in runs)
            gains = [r.aiq - r.mix_aiq for r in runs]
            gain = full[data] - mix
            rows.append(
                {
                    "data": data,
                    "knowledge": knowledge,
                    "prior": prior,
                    "n_labels": n_labels,
                    "aiq": _mean(r.aiq for r in runs),
                    "mix_aiq": mix,
                    "gain": _mean(gains),
                    "gain_spread": float(np.std(gains)),
                    "share": _mean(gains) / gain if abs(gain) > 1e-9 else None,
                    "mse": _mean(r.mse for r in runs),
                }
            )
        return rows

    def newcomer_summary(self) -> list[dict[str, Any]]:
        """Return means over the seeds and the candidates left out."""
        rows = []
        for key, runs in _grouped(
            self.newcomers, lambda r: (r.data, r.knowledge, r.n_labels)
        ).items():
            gains = [r.aiq - r.aiq_without for r in runs]
            rows.append(
                {
                    "data": key[0],
                    "knowledge": key[1],
                    "n_labels": key[2],
                    "aiq": _mean(r.aiq for r in runs),
                    "aiq_gain": _mean(gains),
                    "aiq_gain_spread": float(np.std(gains)),
                    "mse": _mean(r.mse for r in runs),
                    "constant_mse": _mean(r.constant_mse for r in runs),
                }
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain lists, numbers and strings."""
        found = asdict(self)
        found["summary"] = self.summary()
        found["newcomer_summary"] = self.newcomer_summary()
        plain: dict[str, Any] = _plain(found)
        return plain


def print_coldstart(result: ColdResult, console: Console) -> None:
    """Print a table per data set, and one of the newcomers.

    Parameters
    ----------
    result
        What was measured.
    console
        Where to.
    """
    console.print(
        "Priors are learned from the other data sets alone. Labels are labelled "
        "queries, with the labels of all candidates. prior_quality is each "
        "candidate's mean quality in the training split: one number a model, in the "
        "place of a published accuracy. Share: of the fitted router's gain in AIQ "
        "over the convex mix of singles, which knows all labels."
    )
    summary = result.summary()
    for data in result.data:
        rows = [row for row in summary if row["data"] == data]
        title = f"{data}: {len(result.seeds)} splits, mix {rows[0]['mix_aiq']:.3f}"
        table = Table(title=title, title_justify="left")
        for head in ("known of a model", "prior", "labels"):
            table.add_column(head)
        for head in ("AIQ", "beyond the mix", "share", "squared error"):
            table.add_column(head, justify="right")
        for row in rows:
            table.add_row(
                _TITLES[row["knowledge"]],
                row["prior"],
                _labels(row["n_labels"]),
                f"{row['aiq']:.3f}",
                f"{row['gain']:+.3f} ± {row['gain_spread']:.3f}",
                "-" if row["share"] is None else f"{row['share']:.0%}",
                f"{row['mse']:.4f}",
            )
        console.print(table)
    if result.newcomers:
        console.print(_newcomer_table(result))


def _newcomer_table(result: ColdResult) -> Table:
    table = Table(
        title="A newcomer: the others have all their labels", title_justify="left"
    )
    for head in ("data", "known of it", "its labels"):
        table.add_column(head)
    heads = ("AIQ", "beyond that without it", "its squared error", "of its mean alone")
    for head in heads:
        table.add_column(head, justify="right")
    for row in result.newcomer_summary():
        table.add_row(
            row["data"],
            _TITLES[row["knowledge"]],
            _labels(row["n_labels"]),
            f"{row['aiq']:.3f}",
            f"{row['aiq_gain']:+.3f} ± {row['aiq_gain_spread']:.3f}",
            f"{row['mse']:.4f}",
            f"{row['constant_mse']:.4f}",
        )
    return table


def _labels(n: int) -> str:
    return "all" if n == FULL else f"{n:,}"


def _is_full(run: ColdRun) -> bool:
    return run.n_labels == FULL


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _grouped(
    runs: Iterable[_Run], key: Callable[[_Run], tuple[Any, ...]]
) -> dict[tuple[Any, ...], list[_Run]]:
    groups: dict[tuple[Any, ...], list[_Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return round(value, _DIGITS) if isinstance(value, float) else value
