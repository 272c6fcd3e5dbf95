"""A context model as JSON and arrays, and back, checked.

Beside `snapshot`, which does the same with all else that a router knows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixllm_integrations.core.context import ContextModel
from mixllm_integrations.core.errors import StateFormatError
from mixllm_integrations.core.features import FormScale, ShapeScale
from mixllm_integrations.core.form import FORM_FEATURES
from mixllm_integrations.core.ngrams import NgramRidge
from mixllm_integrations.core.shape import SHAPE_FEATURES
from mixllm_integrations.core.tagging import Domains
from mixllm_integrations.core.wordpieces import shipped_tokenizer

__all__ = ["context_from", "context_state", "finite"]

_SCORER = ("column_of", "idf", "offset")
# Far beyond any fit, and small enough that nothing made of them overflows or
# takes more than some hundred megabytes.
_LARGEST_NUMBER, _LARGEST_DIMENSION = 1e9, 4_096
_LARGEST_IDF = 100.0  # 1 + the logarithm of a number of texts; more is no such thing


def context_state(
    context: ContextModel,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what a context model has learned, as JSON and arrays.

    Parameters
    ----------
    context
        To be saved.
    """
    arrays: dict[str, NDArray[Any]] = {"context.centre": context.centre}
    state: dict[str, Any] = {}
    if context.scorer is None or context.form is None or context.shape is None:
        return state, arrays
    state["n_pieces"] = context.scorer.n_pieces
    for name in ("axes", "trait_scale", "seen", "seen_scores"):
        arrays[f"context.{name}"] = getattr(context, name)
    arrays |= {f"scorer.{n}": getattr(context.scorer, n) for n in _SCORER}
    arrays["scorer.weights"] = context.scorer.weights.astype(np.float16)
    arrays |= {f"form.{n}": getattr(context.form, n) for n in ("mean", "scale")}
    arrays |= {f"shape.{n}": getattr(context.shape, n) for n in ("mean", "scale")}
    for name in ("columns", "chosen"):
        arrays[f"shape.{name}"] = getattr(context.shape, name).astype(np.int64)
    if context.domains is not None:
        state["domains"] = list(context.domains.names)
        state["sharpness"] = context.domains.sharpness
        arrays["domains.base_rate"] = context.domains.base_rate
    return state, arrays


def context_from(
    state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> ContextModel:
    """Return the context model that `context_state` described.

    Parameters
    ----------
    state, arrays
        What it gave.

    Raises
    ------
    StateFormatError
        If they do not fit together, or to this version's features.
    """
    centre = finite(arrays, "context.centre", np.float32, None)
    if "n_pieces" not in state:
        return ContextModel(centre)
    size = shipped_tokenizer().size
    if state["n_pieces"] != size:
        raise StateFormatError(
            f"it was learned with a tokenizer of {state['n_pieces']!r} pieces; the one "
            f"here has {size}"
        )
    domains, n_domains = None, 0
    if "domains" in state:
        names = tuple(state["domains"])
        n_domains = len(names)
        rate = finite(arrays, "domains.base_rate", np.float64, n_domains)
        domains = Domains(names, rate, float(state["sharpness"]))
    trait_scale = finite(arrays, "context.trait_scale", np.float64, None)
    if not (trait_scale >= 0).all():
        raise StateFormatError("context.trait_scale is negative")
    if not trait_scale.size:
        raise StateFormatError("context.trait_scale is empty: ease must be there")
    n_outputs = n_domains + len(trait_scale)
    shape = _shape_from(arrays)
    n_dense = len(centre) + len(shape.columns)
    model = ContextModel(
        centre,
        finite(arrays, "context.axes", np.float32, len(centre), None),
        FormScale(
            finite(arrays, "form.mean", np.float64, len(FORM_FEATURES)),
            _positive(arrays, "form.scale", len(FORM_FEATURES)),
        ),
        shape,
        _scorer_from(arrays, size, n_dense, n_outputs),
        domains,
        trait_scale,
        seen := finite(arrays, "context.seen", np.int64, None),
        finite(arrays, "context.seen_scores", np.float16, len(seen), n_outputs),
    )
    if model.dimension > _LARGEST_DIMENSION:
        raise StateFormatError(f"contexts of {model.dimension} numbers are none")
    return model


def _shape_from(arrays: Mapping[str, NDArray[Any]]) -> ShapeScale:
    columns = _places(arrays, "shape.columns", len(SHAPE_FEATURES))
    return ShapeScale(
        columns,
        finite(arrays, "shape.mean", np.float64, len(columns)),
        _positive(arrays, "shape.scale", len(columns)),
        _places(arrays, "shape.chosen", len(columns)),
    )


def _scorer_from(
    arrays: Mapping[str, NDArray[Any]], size: int, n_dense: int, n_outputs: int
) -> NgramRidge:
    idf = finite(arrays, "scorer.idf", np.float32, None)
    column_of = finite(arrays, "scorer.column_of", np.int32, None)
    if not ((column_of >= 0) & (column_of < len(idf))).all():
        raise StateFormatError("scorer.column_of points to columns that are not there")
    if not ((idf >= 0) & (idf < _LARGEST_IDF)).all():
        raise StateFormatError("scorer.idf holds what is no document frequency")
    n_rows = len(idf) + n_dense
    return NgramRidge(
        size,
        column_of,
        idf,
        finite(arrays, "scorer.weights", np.float16, n_rows, n_outputs).astype(
            np.float32
        ),
        finite(arrays, "scorer.offset", np.float32, n_outputs),
    )


def _places(
    arrays: Mapping[str, NDArray[Any]], name: str, below: int
) -> NDArray[np.intp]:
    found = finite(arrays, name, np.int64, None)
    if not ((found >= 0) & (found < below)).all():
        raise StateFormatError(f"{name} points to features that are not there")
    if len(set(found.tolist())) < len(found):
        raise StateFormatError(f"{name} points to a feature twice")
    return found.astype(np.intp)


def _positive(
    arrays: Mapping[str, NDArray[Any]], name: str, width: int | None
) -> NDArray[Any]:
    found = finite(arrays, name, np.float64, width)
    if not (found > 0).all():
        raise StateFormatError(f"{name} is not positive")
    return found


def finite(
    arrays: Mapping[str, NDArray[Any]],
    name: str,
    dtype: type[np.generic],
    *shape: int | None,
) -> NDArray[Any]:
    """Return an array of a kind and shape without infinities.

    Parameters
    ----------
    arrays
        What was read.
    name
        Which of them.
    dtype
        Its kind.
    shape
        Its lengths; ``None``: any.

    Raises
    ------
    StateFormatError
        If it is another kind, of another shape, or not finite.
    """
    found = arrays[name]
    fits = found.dtype == dtype and found.ndim == len(shape)
    if not fits or any(
        w not in (None, g) for g, w in zip(found.shape, shape, strict=True)
    ):
        raise StateFormatError(f"{name} does not fit: {found.dtype} {found.shape}")
    if not np.isfinite(found).all():
        raise StateFormatError(f"{name} is not finite")
    if found.dtype.kind == "f" and float(abs(found).max(initial=0)) > _LARGEST_NUMBER:
        raise StateFormatError(f"{name} holds what no fit gives")
    return found
