"""Figures as files: PNG, SVG or PDF, the same bytes for the same figures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixllm_integrations.core.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure_for"]

_FORMATS = (".png", ".svg", ".pdf")
_DATES = {".svg": "Date", ".pdf": "CreationDate"}


@contextmanager
def figure_for(files: Sequence[Path], size: tuple[float, float]) -> Iterator["Figure"]:
    """Give an empty figure to draw on, and write it when that is done.

    Parameters
    ----------
    files
        Where to write; the ending tells the format.
    size
        Width and height in inches.

    Raises
    ------
    ConfigurationError
        If matplotlib is missing, or an ending is unknown.
    """
    for file in files:
        if file.suffix.lower() not in _FORMATS:
            raise ConfigurationError(
                f"cannot draw {file.name!r}; use one of the endings {_FORMATS}"
            )
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(
            "figures need matplotlib: pip install 'mixllm-integrations[report]'"
        ) from error
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    # No date, no random names: the same figures give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mixllm"}):
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            date = _DATES.get(file.suffix.lower())
            metadata: Any = {date: None} if date else None
            figure.savefig(file, dpi=150, metadata=metadata)
