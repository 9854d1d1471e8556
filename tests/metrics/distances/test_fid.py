"""The Fréchet distance against a library, a closed form and a slow reference."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from feature_sets import AsTheyAre, gaussian, sets
from hypothesis import given, settings

from spqr_checks.metrics.distances import distance_named

fid = distance_named("fid")
QUICK = settings(max_examples=30, deadline=None)


def slow(x: np.ndarray, y: np.ndarray) -> float:
    """As it is written, with the square root of a matrix."""
    one, other = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(one @ other).real
    apart = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return float(apart + np.trace(one + other - 2 * root))


@pytest.mark.parametrize(("n", "m", "d"), [(40, 60, 8), (30, 30, 30), (20, 50, 32), (12, 9, 24)])
def test_it_is_that_of_torchmetrics(n: int, m: int, d: int) -> None:
    library = pytest.importorskip("torchmetrics.image.fid")
    x, y = gaussian(n, d, 0, shift=1), 2 * gaussian(m, d, 1)
    metric = library.FrechetInceptionDistance(AsTheyAre(d)).set_dtype(torch.float64)
    metric.update(torch.from_numpy(y), real=True)
    metric.update(torch.from_numpy(x), real=False)
    # beyond full rank the library takes roots of eigenvalues that are zero but for rounding
    close = 1e-9 if min(n, m) > d else 1e-5
    assert fid(x, y) == pytest.approx(float(metric.compute()), rel=close)


def test_it_is_the_formula_with_the_root_of_a_matrix() -> None:
    x, y = gaussian(50, 6, 0, shift=2), 1.5 * gaussian(70, 6, 1)
    assert fid(x, y) == pytest.approx(slow(x, y), rel=1e-9)


def test_a_worked_example() -> None:
    # one feature: means 1 and 5, variances 2 and 8, so 16 + (√8 − √2)² = 18
    assert fid([[0.0], [2.0]], [[3.0], [7.0]]) == pytest.approx(18.0)


@QUICK
@given(sets())
def test_it_is_symmetric_and_not_negative(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = pair
    assert fid(x, y) == pytest.approx(fid(y, x), rel=1e-9, abs=1e-9)
    assert fid(x, y) >= -1e-9
    assert fid(x, x) == pytest.approx(0.0, abs=1e-9)


def test_it_is_biased_upwards_at_few_images() -> None:
    means = [
        np.mean([fid(gaussian(n, 12, s), gaussian(n, 12, 500 + s)) for s in range(20)])
        for n in (8, 32, 128)
    ]
    assert means[0] > 2 * means[1] > 4 * means[2] > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    spoilt = gaussian(5, 3, 0)
    spoilt[1, 1] = bad
    with pytest.raises(ValueError, match="y contains NaN"):
        fid(gaussian(5, 3, 1), spoilt)
