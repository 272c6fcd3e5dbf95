"""A small neural network: one hidden layer, all candidates at its output."""

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.parallel import map_apart, quietly
from mixllm_integrations.core.predictors.base import (
    Arrays,
    PredictorKind,
    label_groups,
)
from mixllm_integrations.core.types import FloatArray

__all__ = ["MlpPredictor"]

_HIDDEN, _ALPHA, _RATE, _EPOCHS = 48, 1.0, 3e-3, 60
_ENOUGH_TO_HOLD_OUT, _HELD_OUT = 200, 0.1


@dataclass(frozen=True, slots=True, eq=False)
class MlpPredictor:
    """Rectified hidden units, then one linear output per candidate.

    Parameters
    ----------
    hidden, hidden_bias
        Shape ``(n_features, n_units)`` and ``(n_units,)``.
    output, output_bias
        Shape ``(n_units, n_candidates)`` and ``(n_candidates,)``. Candidates
        labelled on other queries have units of their own.

    Notes
    -----
    Source: MixLLM Eq. 5 for an MLP (there for length).
    """

    hidden: NDArray[np.float32]
    hidden_bias: NDArray[np.float32]
    output: NDArray[np.float32]
    output_bias: NDArray[np.float32]
    kind: ClassVar[PredictorKind] = "mlp"

    @classmethod
    def fit(cls, contexts: FloatArray, targets: FloatArray, *, seed: int) -> Self:
        """Train one network per set of candidates that were labelled together.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        targets
            Shape ``(n, n_candidates)``, NaN where unlabelled.
        seed
            Of the initial weights and the batches.
        """
        groups = label_groups(targets)
        n_units = _HIDDEN * len(groups)
        hidden = np.zeros((contexts.shape[1], n_units), dtype=np.float32)
        hidden_bias = np.zeros(n_units, dtype=np.float32)
        output = np.zeros((n_units, targets.shape[1]), dtype=np.float32)
        output_bias = np.zeros(targets.shape[1], dtype=np.float32)
        given = [(contexts, targets, columns, seed) for columns in groups]
        for index, trained in enumerate(map_apart(_train, given)):
            columns = groups[index]
            units = slice(index * _HIDDEN, (index + 1) * _HIDDEN)
            hidden[:, units], hidden_bias[units] = trained[:2]
            output[units, columns], output_bias[columns] = trained[2:]
        return cls(hidden, hidden_bias, output, output_bias)

    def predict(self, contexts: FloatArray) -> FloatArray:
        """Return predictions, shape ``(n, n_candidates)``.

        Parameters
        ----------
        contexts
            Shape ``(n, n_features)``.
        """
        units = contexts.astype(np.float32) @ self.hidden + self.hidden_bias
        raised = np.maximum(units, 0.0) @ self.output + self.output_bias
        return np.asarray(raised, dtype=np.float64)

    def select(self, columns: NDArray[np.intp]) -> Self:
        """Return the same predictor for some of its candidates.

        Parameters
        ----------
        columns
            Which, in which order.
        """
        return type(self)(
            self.hidden,
            self.hidden_bias,
            np.ascontiguousarray(self.output[:, columns]),
            self.output_bias[columns],
        )

    def state(self) -> Arrays:
        """Return all that was learned as arrays by name."""
        return {
            "hidden": self.hidden,
            "hidden_bias": self.hidden_bias,
            "output": self.output,
            "output_bias": self.output_bias,
        }

    @classmethod
    def from_state(cls, arrays: Arrays) -> Self:
        """Return the predictor that `state` described.

        Parameters
        ----------
        arrays
            What `state` returned.
        """
        names = ("hidden", "hidden_bias", "output", "output_bias")
        return cls(*(np.asarray(arrays[name], dtype=np.float32) for name in names))


def _train(
    contexts: FloatArray, targets: FloatArray, columns: NDArray[np.intp], seed: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return both layers for columns that were labelled together."""
    from sklearn.neural_network import MLPRegressor

    labelled = np.isfinite(targets[:, columns[0]])
    contexts, targets = contexts[labelled], targets[labelled][:, columns]
    centre = contexts.mean(axis=0)  # not scaled: the blocks of a context are weighed
    mean, scale = targets.mean(axis=0), targets.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 0.0)  # constant labels: say the constant
    holds_out = len(contexts) >= _ENOUGH_TO_HOLD_OUT
    n_held_out = math.ceil(_HELD_OUT * len(contexts)) if holds_out else 0
    network = MLPRegressor(
        hidden_layer_sizes=(_HIDDEN,),
        alpha=_ALPHA,
        batch_size=min(256, len(contexts) - n_held_out),
        learning_rate_init=_RATE,
        early_stopping=holds_out,
        validation_fraction=_HELD_OUT,
        n_iter_no_change=5,
        max_iter=_EPOCHS,
        random_state=seed,
    )
    with quietly():
        labels = (targets - mean) / np.where(scale > 0, scale, 1.0)
        given = contexts - centre
        network.fit(given, labels if labels.shape[1] > 1 else labels[:, 0])
    (first, last), (first_bias, last_bias) = network.coefs_, network.intercepts_
    return first, first_bias - centre @ first, last * scale, last_bias * scale + mean
