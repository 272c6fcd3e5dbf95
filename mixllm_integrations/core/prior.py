"""What to expect of any model before it has one label: the start without labels.

Beside stage 4. How easy a query is shows in its form, and how much a model
makes of that is told by one number of it (`prior_quality`). The weights that
ship were learned on public recorded answers; a router's own labels replace
them step by step.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mixllm_integrations.core.errors import ConfigurationError, StateFormatError
from mixllm_integrations.core.form import FORM_FEATURES
from mixllm_integrations.core.reading import Reading
from mixllm_integrations.core.types import FloatArray

__all__ = [
    "QualityDepartures",
    "QualityPrior",
    "checked_prior",
    "logit",
    "shipped_prior",
    "sigmoid",
    "standardised",
]

_SHIPPED = Path(__file__).resolve().parents[1] / "data" / "prior"
_ARRAYS = ("centre", "scale", "weights")
_LIMIT = 3.0  # standard deviations; an odd query must not run away
_CERTAIN = 0.02  # no base is taken to be surer than that


def logit(quality: FloatArray) -> FloatArray:
    """Return log-odds of qualities, those near 0 and 1 drawn in; any shape.

    Parameters
    ----------
    quality
        In [0, 1].
    """
    inside = np.minimum(np.maximum(quality, _CERTAIN), 1.0 - _CERTAIN)
    return np.asarray(np.log(inside / (1.0 - inside)))


def sigmoid(odds: FloatArray) -> FloatArray:
    """Return the quality of log-odds; any shape.

    Parameters
    ----------
    odds
        Any finite numbers.
    """
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * odds))  # cannot overflow


def standardised(form: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray:
    """Return features in standard deviations, at most three, same shape.

    Parameters
    ----------
    form
        Shape ``(n, n_features)``.
    centre, scale
        Shape ``(n_features,)``.
    """
    return np.asarray(np.minimum(np.maximum((form - centre) / scale, -_LIMIT), _LIMIT))


@dataclass(frozen=True, slots=True, eq=False)
class QualityPrior:
    """Predicts the quality of any model from a query's form and one number.

    quality = sigmoid(logit(base) + strength · (ease(query) − level)).

    Parameters
    ----------
    features
        Names of the features of form that are used.
    centre, scale, weights
        Standardise and weigh them, shape ``(n_features,)``.
    cold_strength
        Of the ease where the level of the queries is unknown.
    fitted_strength
        Of the ease where labelled queries tell the level.

    Raises
    ------
    ConfigurationError
        If a feature is unknown, or the shapes differ.

    Notes
    -----
    Our choice; the form is that of a Rasch model. The embedding of the query,
    its n-grams and a second dimension of skill were tried: none predicted the
    answers of other models to other tasks better than form alone. Being of
    form alone, it goes with any encoder.

    Examples
    --------
    >>> from mixllm_integrations.core.reading import read
    >>> from mixllm_integrations.core.encoder import StaticEncoder
    >>> reading = read(["Who wrote Faust?", ""], StaticEncoder.load())
    >>> found = shipped_prior().predict(reading, np.array([0.4, 0.8]))
    >>> bool(found[0, 0] < found[0, 1]), found[1].tolist()
    (True, [0.4, 0.8])
    """

    features: tuple[str, ...]
    centre: FloatArray
    scale: FloatArray
    weights: FloatArray
    cold_strength: float
    fitted_strength: float

    def __post_init__(self) -> None:
        unknown = [name for name in self.features if name not in FORM_FEATURES]
        shapes = {np.shape(getattr(self, name)) for name in _ARRAYS}
        if unknown or shapes != {(len(self.features),)}:
            raise ConfigurationError(
                f"a prior of {len(self.features)} features has arrays of shapes "
                f"{sorted(shapes)} and unknown features {unknown}; known are "
                f"{list(FORM_FEATURES)}"
            )

    @property
    def revision(self) -> str:
        """What tells this prior from others: a digest of its numbers."""
        digest = sha256(json.dumps(self.features).encode())
        for name in _ARRAYS:
            digest.update(np.asarray(getattr(self, name), dtype="<f8").tobytes())
        strengths = [float(self.cold_strength), float(self.fitted_strength)]
        digest.update(json.dumps(strengths).encode())
        return digest.hexdigest()[:16]

    def ease(self, reading: Reading) -> FloatArray:
        """Return how much easier than usual queries look, in log-odds.

        Parameters
        ----------
        reading
            Of the queries.

        Returns
        -------
        FloatArray
            Shape ``(n,)``; 0 where there is nothing to read.
        """
        form = reading.form
        if self.features != FORM_FEATURES:
            form = form[:, [FORM_FEATURES.index(name) for name in self.features]]
        ease = standardised(form, self.centre, self.scale) @ self.weights
        return np.asarray(ease * ~reading.blank)

    def predict(
        self,
        reading: Reading,
        base_quality: FloatArray,
        *,
        level: FloatArray | None = None,
    ) -> FloatArray:
        """Return the quality to expect, shape ``(n, n_candidates)``, in [0, 1].

        Parameters
        ----------
        reading
            Of the queries.
        base_quality
            The one number of each candidate, shape ``(n_candidates,)``.
        level
            Mean ease of the queries that the number was measured on, shape
            ``(n_candidates,)``; ``None``: unknown, so the ease counts less.
            A blank query gets the number itself.
        """
        return self.of(base_quality, level=level).quality(reading)

    def departures(
        self,
        reading: Reading,
        base_quality: FloatArray,
        *,
        level: FloatArray | None = None,
    ) -> FloatArray:
        """Return how far from the base the quality is, shape ``(n, n_candidates)``.

        Parameters
        ----------
        reading, base_quality, level
            As for `predict`.
        """
        return self.of(base_quality, level=level)(reading)

    def of(
        self, base_quality: FloatArray, *, level: FloatArray | None = None
    ) -> "QualityDepartures":
        """Return what this prior says of some candidates, at hand for many queries.

        Parameters
        ----------
        base_quality, level
            As for `predict`.
        """
        return QualityDepartures(self, base_quality, level)

    def save(self, folder: str | Path, *, sources: Sequence[str] = ()) -> None:
        """Write the prior as ``prior.json`` and ``prior.safetensors``.

        Parameters
        ----------
        folder
            Where to; it is made if need be.
        sources
            What it was learned from, for the reader.
        """
        from safetensors.numpy import save

        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        arrays = {n: np.asarray(getattr(self, n), dtype=np.float64) for n in _ARRAYS}
        (home / "prior.safetensors").write_bytes(save(arrays))
        facts = {
            "features": list(self.features),
            "cold_strength": self.cold_strength,
            "fitted_strength": self.fitted_strength,
            "revision": self.revision,
            "sources": list(sources),
        }
        text = json.dumps(facts, indent=1) + "\n"
        (home / "prior.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "QualityPrior":
        """Return the prior that `save` wrote.

        Parameters
        ----------
        folder
            Where from.

        Raises
        ------
        StateFormatError
            If it cannot be read, or is not what was saved.
        """
        from safetensors.numpy import load_file

        home = Path(folder)
        try:
            facts: dict[str, Any] = json.loads(
                (home / "prior.json").read_text(encoding="utf-8")
            )
            arrays = load_file(home / "prior.safetensors")
            centre, scale, weights = (
                np.asarray(arrays[n], dtype=np.float64) for n in _ARRAYS
            )
            prior = cls(
                tuple(facts["features"]),
                centre,
                scale,
                weights,
                float(facts["cold_strength"]),
                float(facts["fitted_strength"]),
            )
            is_same = prior.revision == facts["revision"]
        except Exception as error:
            raise StateFormatError(
                f"the prior in {str(home)!r} cannot be read: {type(error).__name__}"
            ) from error
        if not is_same:
            raise StateFormatError(
                f"the prior in {str(home)!r} is not the one that its prior.json "
                f"describes (revision {facts['revision']!r}): restore it from a copy"
            )
        return prior


class QualityDepartures:
    """A `QualityPrior` about certain candidates; called with queries, it departs.

    Parameters
    ----------
    prior
        What is known of queries.
    base_quality, level
        As for `QualityPrior.predict`.
    """

    def __init__(
        self, prior: QualityPrior, base_quality: FloatArray, level: FloatArray | None
    ) -> None:
        self._prior, self._base, self._level = prior, base_quality, level
        self._odds = logit(base_quality)
        self._start = sigmoid(self._odds)

    def __call__(self, reading: Reading) -> FloatArray:
        """Return how far from the base the quality is, shape ``(n, n_candidates)``.

        Parameters
        ----------
        reading
            Of the queries.
        """
        ease = self._prior.ease(reading)[:, None]
        if self._level is None:
            moved = self._prior.cold_strength * ease
        else:
            moved = self._prior.fitted_strength * (ease - self._level)
            moved = moved * ~reading.blank[:, None]
        return sigmoid(self._odds + moved) - self._start

    def quality(self, reading: Reading) -> FloatArray:
        """Return the quality to expect, shape ``(n, n_candidates)``, in [0, 1].

        Parameters
        ----------
        reading
            Of the queries.
        """
        found = self._base + self(reading)
        return np.asarray(np.minimum(np.maximum(found, 0.0), 1.0))


@lru_cache(maxsize=1)
def shipped_prior() -> QualityPrior:
    """Return the prior that ships with the package; see ``data/NOTICE-prior.md``."""
    return QualityPrior.load(_SHIPPED)


def checked_prior(prior: object) -> QualityPrior | None:
    """Return the prior that was asked for.

    Parameters
    ----------
    prior
        A `QualityPrior`, ``"shipped"``, or ``"none"``: every query is expected
        to be answered alike until there are labels.

    Raises
    ------
    ConfigurationError
        If it is something else.
    """
    if isinstance(prior, QualityPrior):
        return prior
    if isinstance(prior, str) and prior in ("shipped", "none"):
        return shipped_prior() if prior == "shipped" else None
    raise ConfigurationError(
        f'prior must be "shipped", "none" or a QualityPrior, not {prior!r}'
    )
