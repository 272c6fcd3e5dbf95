"""Figures: what is in them, and that they repeat."""

import builtins
import math

import pytest

from mixllm_integrations import ConfigurationError
from mixllm_integrations.plots.curves import (
    PlottedCurve,
    PlottedPoint,
    plot_curves,
    plot_reliability,
)

CURVES = [
    PlottedCurve(
        "ours", [0.01, 0.1, 1.0], [math.nan, 0.95, 1.1], "ours", [math.nan, 0.01, 0.02]
    ),
    PlottedCurve("ours too", [0.01, 1.0], [0.9, 1.0], "ours"),
    PlottedCurve("other", [0.01, 1.0], [0.88, 1.0]),
    PlottedCurve("mix", [0.01, 1.0], [0.87, 1.0], "mix"),
    PlottedCurve("bound", [0.01, 1.0], [1.2, 1.4], "bound"),
]
# Three points on one spot, one far below.
POINTS = [PlottedPoint(f"model-{i}", 0.5, 0.9) for i in range(3)]
POINTS += [PlottedPoint("weak", 0.02, 0.2)]


def test_every_curve_and_every_point_is_named(tmp_path):
    file = tmp_path / "deep" / "curves.svg"
    plot_curves(CURVES, POINTS, [file], title="a title")
    text = file.read_text(encoding="utf-8")
    for label in ("a title", *(x.label for x in (*CURVES, *POINTS))):
        assert label in text


def test_the_same_figures_give_the_same_file(tmp_path):
    files = [tmp_path / name for name in ("a.svg", "b.svg")]
    for file in files:
        plot_curves(CURVES, POINTS, [file])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_curve_without_points_can_be_drawn(tmp_path):
    plot_curves(CURVES[-1:], [], [tmp_path / "bound.png"])
    assert (tmp_path / "bound.png").stat().st_size > 1000


def test_reliability_names_every_method(tmp_path):
    file = tmp_path / "reliability.svg"
    rows = [(0.1, 0.2, 10), (0.8, 0.7, 90)]
    plot_reliability({"one": rows, "two": rows}, [file], title="a title")
    text = file.read_text(encoding="utf-8")
    for label in ("one", "two", "calibrated", "a title"):
        assert label in text


@pytest.mark.parametrize(
    "draw",
    [lambda f: plot_curves(CURVES, [], f), lambda f: plot_reliability({"x": []}, f)],
)
def test_an_unknown_ending_is_an_error_before_anything_is_drawn(tmp_path, draw):
    with pytest.raises(ConfigurationError, match=r"'x\.gif'.*\.png"):
        draw([tmp_path / "x.gif"])


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="no curve"):
        plot_curves([], POINTS, [tmp_path / "x.png"])
    with pytest.raises(ConfigurationError, match="no method"):
        plot_reliability({}, [tmp_path / "x.png"])


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"mixllm-integrations\[report\]"):
        plot_curves(CURVES, POINTS, [tmp_path / "x.png"])
