"""Where a candidate is good: by what queries are about, and by how they look."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.form import FORM_FEATURES
from mixllm_integrations.core.types import FloatArray

__all__ = ["Strength", "Strengths", "strengths_of"]

_FEWEST = 10  # queries, that a group is told of (our choice)
_ANY = float(np.log1p(0.5))  # of a count: at least one
_LOOKS = {
    "numbers": "with numbers",
    "operators": "with formulas or operators",
    "code_words": "with words of code",
    "steps": "in several steps",
    "negations": "with a negation",
    "units": "with units of measure",
    "quotes": "with quotes",
    "foreign": "beyond plain English letters",
}


@dataclass(frozen=True, slots=True)
class Strength:
    """One group of queries, and how a candidate does there.

    Parameters
    ----------
    kind, name
        ``"all"``, ``"domain"`` or ``"form"``, and which.
    queries
        How many are in it.
    quality
        Mean quality that is expected of the candidate.
    rival, rival_quality
        Who of the others does best on the whole group, and its quality; ``None``
        without others.
    rank
        Its place among all by mean quality; 1 is the best.
    """

    kind: Literal["all", "domain", "form"]
    name: str
    queries: int
    quality: float
    rival: str | None
    rival_quality: float | None
    rank: int

    @property
    def ahead(self) -> float:
        """By how much it is better than its rival; 0 without one."""
        return 0.0 if self.rival_quality is None else self.quality - self.rival_quality


@dataclass(frozen=True, slots=True)
class Strengths:
    """Where a candidate is good.

    Parameters
    ----------
    candidate
        Whose.
    overall
        On all queries.
    domains, forms
        Groups by what queries are about and by how they look, strongest first.
    """

    candidate: str
    overall: Strength
    domains: tuple[Strength, ...]
    forms: tuple[Strength, ...]


def strengths_of(
    candidate: str,
    names: Sequence[str],
    quality: FloatArray,
    contexts: FloatArray,
    model: ContextModel,
) -> Strengths:
    """Return where a candidate is good, by predictions on some queries.

    Parameters
    ----------
    candidate
        Its name.
    names
        Of all that compete, in the order of the columns.
    quality
        What is expected, shape ``(n, n_candidates)``.
    contexts
        Of the queries, shape ``(n, dimension)``.
    model
        Which the contexts are of.
    """
    column = list(names).index(candidate)

    def of(
        kind: Literal["all", "domain", "form"], name: str, rows: NDArray[np.bool_]
    ) -> Strength:
        mine = quality[rows]
        means = mine.mean(axis=0)
        others = [i for i in range(len(names)) if i != column]
        rival = max(others, key=means.__getitem__, default=None)
        return Strength(
            kind,
            name,
            len(mine),
            float(means[column]),
            None if rival is None else names[rival],
            None if rival is None else float(means[rival]),
            1 + int((means > means[column]).sum()),
        )

    found = [of(kind, name, rows) for kind, name, rows in _groups(model, contexts)]
    found.sort(key=lambda one: -one.ahead)
    return Strengths(
        candidate,
        of("all", "all queries", np.ones(len(contexts), dtype=np.bool_)),
        tuple(one for one in found if one.kind == "domain"),
        tuple(one for one in found if one.kind == "form"),
    )


def _groups(
    model: ContextModel, contexts: FloatArray
) -> Iterator[tuple[Literal["domain", "form"], str, NDArray[np.bool_]]]:
    about = np.array(model.domains_of(contexts), dtype=object)
    for name in dict.fromkeys(about.tolist()):
        rows = about == name
        if name is not None and rows.sum() >= _FEWEST:
            yield "domain", name, rows
    if model.form is None:
        return
    looks = model.form.features(contexts[:, model.blocks["form"]])
    at = {name: looks[:, place] for place, name in enumerate(FORM_FEATURES)}
    lengths = at["log_pieces"]
    low, high = np.quantile(lengths, [1 / 3, 2 / 3])
    groups = {"short (shortest third)": lengths <= low}
    groups |= {told: at[name] > _ANY for name, told in _LOOKS.items()}
    groups["long (longest third)"] = lengths >= high
    for told, rows in groups.items():
        if _FEWEST <= rows.sum() < len(rows):
            yield "form", told, rows
