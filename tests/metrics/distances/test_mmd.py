"""KID and CMMD against slow references and a library, and what must hold of both."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from feature_sets import AsTheyAre, sets, split_interval, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.metrics.distances import Distance, distance_named, mmd

cmmd, kid = distance_named("cmmd"), distance_named("kid")
QUICK = settings(max_examples=30, deadline=None)
BOTH = pytest.mark.parametrize("distance", [kid, cmmd], ids=lambda d: d.name)


def polynomial(a: list[float], b: list[float]) -> float:
    return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3


def gaussian(a: list[float], b: list[float]) -> float:
    return math.exp(-sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / (2 * 10**2))


def slow(
    kernel: Callable[[list[float], list[float]], float],
    x: list[list[float]],
    y: list[list[float]],
) -> float:
    """The U-statistic, pair by pair."""

    def within(rows: list[list[float]]) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return math.fsum(kernel(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    between = math.fsum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * between


def torchmetrics_kid(x: np.ndarray, y: np.ndarray) -> float:
    """By the library itself, over one subset that holds all images (equal sizes only)."""
    kid_module = pytest.importorskip("torchmetrics.image.kid")
    metric = kid_module.KernelInceptionDistance(AsTheyAre(), subsets=1, subset_size=len(x))
    metric.update(torch.from_numpy(x), real=True)
    metric.update(torch.from_numpy(y), real=False)
    return float(metric.compute()[0])


def authors_cmmd(x: np.ndarray, y: np.ndarray) -> float:
    """The minimum-variance estimate of the CMMD authors' code."""

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        squares = ((a[:, None] - b[None]) ** 2).sum(-1)
        return float(np.exp(-squares / 200).mean())

    return 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


class TestFormula:
    @QUICK
    @given(sets())
    def test_kid_is_the_u_statistic_of_the_cubic_kernel(
        self, pair: tuple[np.ndarray, np.ndarray]
    ) -> None:
        x, y = pair
        expected = slow(polynomial, x.tolist(), y.tolist())
        assert kid(x, y) == pytest.approx(expected, rel=1e-9, abs=1e-9)

    @QUICK
    @given(sets())
    def test_cmmd_is_1000_times_that_of_the_gaussian_of_width_10(
        self, pair: tuple[np.ndarray, np.ndarray]
    ) -> None:
        x, y = pair
        expected = 1000 * slow(gaussian, x.tolist(), y.tolist())
        assert cmmd(x, y) == pytest.approx(expected, rel=1e-9, abs=1e-9)

    def test_kid_is_that_of_torchmetrics(self) -> None:
        x, y = 30 * unit(40, 16, 0), 30 * unit(40, 16, 1, shift=1)
        assert kid(x, y) == pytest.approx(torchmetrics_kid(x, y), rel=1e-9)

    def test_cmmd_differs_from_its_authors_code_by_the_pairs_of_an_image_with_itself(self) -> None:
        x, y = unit(30, 8, 0), unit(20, 8, 1, shift=1)

        def others(rows: np.ndarray) -> float:
            kernel = np.exp(-((rows[:, None] - rows[None]) ** 2).sum(-1) / 200)
            return float(kernel[~np.eye(len(rows), dtype=bool)].mean())

        bias = 1000 * ((1 - others(x)) / len(x) + (1 - others(y)) / len(y))
        assert cmmd(x, y) + bias == pytest.approx(authors_cmmd(x, y), rel=1e-9)

    def test_a_worked_example(self) -> None:
        # one feature, x = {0, 1}, y = {0, 2}: k(0,·) = 1, k(1, 2) = 27
        assert kid([[0.0], [1.0]], [[0.0], [2.0]]) == pytest.approx(1 + 1 - 2 * 30 / 4)

    @BOTH
    def test_blocks_do_not_matter(
        self, distance: Distance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        x, y = unit(50, 4, 0), unit(33, 4, 1)
        whole, interval = distance(x, y), split_interval(x, y, distance, 0)
        monkeypatch.setattr(mmd, "_ROWS", 7)
        assert distance(x, y) == pytest.approx(whole, rel=1e-9, abs=1e-12)
        assert split_interval(x, y, distance, 0) == pytest.approx(interval, rel=1e-9)


class TestProperties:
    @BOTH
    @QUICK
    @given(sets())
    def test_symmetric(self, distance: Distance, pair: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = pair
        assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-9, abs=1e-9)

    @BOTH
    @QUICK
    @given(sets(), st.integers(0, 100))
    def test_the_order_of_images_does_not_matter(
        self, distance: Distance, pair: tuple[np.ndarray, np.ndarray], seed: int
    ) -> None:
        x, y = pair
        shuffled = x[np.random.default_rng(seed).permutation(len(x))]
        assert distance(shuffled, y) == pytest.approx(distance(x, y), rel=1e-9, abs=1e-9)

    @BOTH
    def test_zero_on_average_for_samples_of_one_distribution(self, distance: Distance) -> None:
        values = np.array(
            [distance(unit(12, 6, 2 * seed), unit(9, 6, 2 * seed + 1)) for seed in range(600)]
        )
        standard_error = values.std() / math.sqrt(len(values))
        assert abs(values.mean()) < 4 * standard_error
        assert values.min() < 0 < values.max()

    @BOTH
    @QUICK
    @given(st.integers(0, 1000), st.floats(1.0, 1.5))
    def test_it_grows_with_the_shift(self, distance: Distance, seed: int, shift: float) -> None:
        # beyond what chance does to 160 images
        reference = unit(160, 6, seed)
        near, far, farthest = (
            distance(unit(160, 6, seed + 1, shift=s), reference) for s in (0.0, shift, shift + 1.5)
        )
        assert near < far < farthest

    @BOTH
    def test_one_set_in_two_copies_is_at_no_positive_distance(self, distance: Distance) -> None:
        x = unit(20, 6, 0)
        assert distance(x, x) <= 0


class TestRefusals:
    @BOTH
    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_features_that_are_not_finite(self, distance: Distance, bad: float) -> None:
        x, y = unit(5, 3, 0), unit(5, 3, 1)
        spoilt = x.copy()
        spoilt[2, 1] = bad
        with pytest.raises(ValueError, match="x contains NaN"):
            distance(spoilt, y)
        with pytest.raises(ValueError, match="y contains NaN"):
            distance(y, spoilt)
        with pytest.raises(ValueError, match="x contains NaN"):
            split_interval(spoilt, y, distance, 0)

    @BOTH
    @pytest.mark.parametrize("n", [0, 1])
    def test_fewer_than_two_images(self, distance: Distance, n: int) -> None:
        with pytest.raises(ValueError, match=f"x has {n} images"):
            distance(np.zeros((n, 3)), unit(5, 3, 1))
        with pytest.raises(ValueError, match=f"y has {n} images"):
            distance(unit(5, 3, 1), np.zeros((n, 3)))

    @BOTH
    def test_unequal_widths_and_odd_shapes(self, distance: Distance) -> None:
        with pytest.raises(ValueError, match="x has 3 features per image, y has 4"):
            distance(unit(5, 3, 0), unit(5, 4, 0))
        with pytest.raises(ValueError, match=r"x has shape \(3,\)"):
            distance(np.zeros(3), unit(5, 3, 0))
        with pytest.raises(ValueError, match=r"shape \(5, 0\)"):
            distance(np.zeros((5, 0)), np.zeros((5, 0)))
