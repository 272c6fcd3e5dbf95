import math

import numpy as np
import pytest

from mixllm_integrations.core.predictors import shrinkage
from mixllm_integrations.core.predictors.base import column_means

NAN = math.nan


def test_a_slope_is_that_of_least_squares_drawn_to_the_usual_one():
    said = np.array([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0], [1.0, NAN, 0.0]])
    truth = np.array([[0.5, -1.0, 0.3], [-0.5, 1.0, -0.3], [0.5, NAN, NAN]])
    # Squares 0.25, 1 and 0.09 on average. Own slopes: 1.5 / 3, below 0, none.
    free = shrinkage.shrunk_slope(said, truth, 0.9, mass=0.0)
    np.testing.assert_allclose(free, [0.5, 0.0, 0.0])
    # (1.5 + 4·0.25·0.9) / (3 + 4·0.25); (-2 + 4·0.9) / (2 + 4); 0.9.
    drawn = shrinkage.shrunk_slope(said, truth, 0.9, mass=4.0)
    np.testing.assert_allclose(drawn, [0.6, 1.6 / 6, 0.9])


def test_what_was_said_timidly_is_stretched_up_to_a_limit():
    said, truth = np.array([[1.0, 1.0], [-1.0, -1.0]]), np.array([[1.3, 4.0]] * 2)
    truth[1] *= -1.0
    assert shrinkage.shrunk_slope(said, truth, 1.0, mass=0.0).tolist() == [1.0, 1.0]
    wide = shrinkage.shrunk_slope(said, truth, 1.0, mass=0.0, most=1.5)
    np.testing.assert_allclose(wide, [1.3, 1.5])


def test_what_a_query_does_to_all_alike_is_no_scatter():
    rng = np.random.default_rng(0)
    shared = rng.uniform(0.2, 0.6, (200, 1)) + np.array([0.0, 0.1, 0.2])
    alone = shrinkage.label_scatter(shared.mean(axis=0), shared)
    mixed = rng.permuted(shared, axis=0)
    assert alone == pytest.approx(shrinkage._LEAST_SCATTER, abs=0.003)
    assert shrinkage.label_scatter(mixed.mean(axis=0), mixed) == pytest.approx(
        mixed.var() * 0.7, rel=0.5
    )
    apart = np.where(np.arange(200)[:, None] % 3 == np.arange(3), shared, NAN)
    expected = np.nanvar(apart, axis=0).mean()
    found = shrinkage.label_scatter(column_means(apart), apart)
    assert found == pytest.approx(max(expected, shrinkage._LEAST_SCATTER), rel=0.05)
