"""Features of form and shape, standardised as the training queries had them.

Beside stage 3: which features there are stands in `form` and `shape`; here is
what a fit keeps of them, and on which scale they enter a context.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.parallel import n_jobs
from mixllm_integrations.core.reading import Reading
from mixllm_integrations.core.shape import shape_features
from mixllm_integrations.core.types import FloatArray

__all__ = ["FormScale", "ShapeScale"]

_FORM_WEIGHT, _FORM_LIMIT = 0.1, 5.0  # an odd query must not run away
_SHAPE_WEIGHT, _SHAPE_LIMIT = 0.1, 4.0  # standard deviations
_SEEN_IN = 0.01  # share of the queries that have a feature at all
_CHOSEN, _QUERIES_PER_FEATURE = 40, 10
_TRAITS = 4
_TREES, _DEPTH, _LEAF, _FEATURES = 32, 8, 20, 0.35
_WORTH_THREADS = 2_500


@dataclass(frozen=True, slots=True, eq=False)
class FormScale:
    """Scale of the features of form.

    Parameters
    ----------
    mean, scale
        Of the training queries, shape ``(n_features,)``.
    """

    mean: FloatArray
    scale: FloatArray

    @classmethod
    def fit(cls, reading: Reading) -> Self:
        """Learn mean and scale.

        Parameters
        ----------
        reading
            Of the training queries.
        """
        form = reading.form
        return cls(form.mean(axis=0), form.std(axis=0) + 1e-3)

    def apply(self, reading: Reading) -> FloatArray:
        """Return the block of a context, shape ``(n, n_features)``.

        Parameters
        ----------
        reading
            Of the queries.
        """
        form = reading.form - self.mean
        form /= self.scale
        np.maximum(form, -_FORM_LIMIT, out=form)
        np.minimum(form, _FORM_LIMIT, out=form)
        form *= _FORM_WEIGHT
        return form

    def features(self, block: FloatArray) -> FloatArray:
        """Return the features of a block, as far as they were within its limits.

        Parameters
        ----------
        block
            What `apply` gave, shape ``(n, n_features)``.
        """
        return block / _FORM_WEIGHT * self.scale + self.mean


@dataclass(frozen=True, slots=True, eq=False)
class ShapeScale:
    """Which features of shape are used, and their scale.

    Parameters
    ----------
    columns
        Of `SHAPE_FEATURES`, those that more than one training query in a hundred
        has, shape ``(n_columns,)``.
    mean, scale
        Of them, shape ``(n_columns,)``.
    chosen
        Places among `columns` of those that enter a context: a small forest on
        the traits split by them most. The linear scores see all columns.
    """

    columns: NDArray[np.intp]
    mean: FloatArray
    scale: FloatArray
    chosen: NDArray[np.intp]
    weight: ClassVar[float] = 0.05  # beside an embedding of length 1

    @classmethod
    def fit(
        cls, reading: Reading, traits: FloatArray, *, seed: int
    ) -> tuple[Self, FloatArray]:
        """Learn columns and scale, and give the training queries on that scale.

        Parameters
        ----------
        reading
            Of the training queries.
        traits
            What the features are chosen by, shape ``(n, n_traits)``.
        seed
            Of the forest that chooses.

        Returns
        -------
        ShapeScale
            What was learned.
        FloatArray
            Shape ``(n, n_columns)``.
        """
        features = shape_features(reading.shape)
        columns = np.flatnonzero((features > 0).mean(axis=0) > _SEEN_IN)
        found = features[:, columns]
        scale = cls(
            columns,
            found.mean(axis=0),
            found.std(axis=0) + 0.05,
            np.zeros(0, dtype=np.intp),
        )
        standard = scale._standard(found)
        chosen = _most_telling(standard, traits[:, :_TRAITS], seed)
        return cls(columns, scale.mean, scale.scale, chosen), standard

    def apply(self, reading: Reading) -> FloatArray:
        """Return all columns on their scale, shape ``(n, n_columns)``.

        Parameters
        ----------
        reading
            Of the queries.
        """
        return self._standard(shape_features(reading.shape).take(self.columns, axis=1))

    def features(self, standard: FloatArray) -> FloatArray:
        """Return the block of a context, shape ``(n, n_chosen)``.

        Parameters
        ----------
        standard
            From `apply`.
        """
        return _SHAPE_WEIGHT * standard.take(self.chosen, axis=1)

    def _standard(self, features: FloatArray) -> FloatArray:
        standard = features - self.mean
        standard /= self.scale
        np.maximum(standard, -_SHAPE_LIMIT, out=standard)
        return np.minimum(standard, _SHAPE_LIMIT, out=standard)


def _most_telling(
    standard: FloatArray, traits: FloatArray, seed: int
) -> NDArray[np.intp]:
    """Return the columns that a forest on the traits splits by most, ascending."""
    n_chosen = min(_CHOSEN, len(standard) // _QUERIES_PER_FEATURE, standard.shape[1])
    if n_chosen < 1:
        return np.zeros(0, dtype=np.intp)
    from sklearn.ensemble import ExtraTreesRegressor

    forest = ExtraTreesRegressor(
        _TREES,
        max_depth=_DEPTH,
        min_samples_leaf=_LEAF,
        max_features=_FEATURES,
        n_jobs=n_jobs(-1) if len(standard) >= _WORTH_THREADS else 1,
        random_state=seed,
    )
    targets = traits / (traits.std(axis=0) + 1e-9)
    forest.fit(
        standard.astype(np.float32), targets if targets.shape[1] > 1 else targets[:, 0]
    )
    with np.errstate(invalid="ignore"):  # traits that never vary: nothing is split
        importance = np.nan_to_num(forest.feature_importances_).round(9)
    return np.sort(np.argsort(-importance, kind="stable")[:n_chosen])
