"""KID and CMMD against slow references, and what must hold of any distance."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spqr_checks.metrics import distances
from spqr_checks.metrics.distances import Distance, cmmd, kid, split_interval

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
    """poly_mmd and maximum_mean_discrepancy as torchmetrics writes them (equal sizes only)."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray((a @ b.T * (1.0 / a.shape[1]) + 1.0) ** 3)

    k_11, k_22, k_12 = kernel(x, x), kernel(y, y), kernel(x, y)
    m = k_11.shape[0]
    value = (k_11.sum() - np.trace(k_11) + k_22.sum() - np.trace(k_22)) / (m * (m - 1))
    return float(value - 2 * k_12.sum() / m**2)


def authors_cmmd(x: np.ndarray, y: np.ndarray) -> float:
    """The minimum-variance estimate of the CMMD authors' code."""

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        squares = ((a[:, None] - b[None]) ** 2).sum(-1)
        return float(np.exp(-squares / 200).mean())

    return 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def unit(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    rows[:, 0] += shift
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def sets(least: int = 2) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Two sets of features of one width."""
    value = st.floats(-2, 2, width=32)
    return st.tuples(st.integers(least, 7), st.integers(2, 7), st.integers(1, 5)).flatmap(
        lambda s: st.tuples(
            arrays(np.float64, (s[0], s[2]), elements=value),
            arrays(np.float64, (s[1], s[2]), elements=value),
        )
    )


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
        assert kid(x, y) == pytest.approx(torchmetrics_kid(x, y), rel=1e-12)

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
        monkeypatch.setattr(distances, "_ROWS", 7)
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


class TestSplitInterval:
    @BOTH
    def test_it_repeats_with_its_seed(self, distance: Distance) -> None:
        x, y = unit(30, 4, 0, shift=1), unit(40, 4, 1)
        assert split_interval(x, y, distance, 3) == split_interval(x, y, distance, 3)
        assert split_interval(x, y, distance, 3) != split_interval(x, y, distance, 4)

    @BOTH
    def test_it_surrounds_the_distance_and_narrows_with_images(self, distance: Distance) -> None:
        y = unit(60, 4, 1)
        widths = []
        for n in (20, 80, 320):
            x = unit(n, 4, 0, shift=1)
            low, high = split_interval(x, y, distance, 0)
            assert low < distance(x, y) < high
            widths.append(high - low)
        assert widths[0] > 1.5 * widths[1] > 1.5**2 * widths[2]

    @BOTH
    def test_a_higher_level_is_wider(self, distance: Distance) -> None:
        x, y = unit(30, 4, 0, shift=1), unit(40, 4, 1)
        low, high = split_interval(x, y, distance, 0, level=0.5)
        lower, higher = split_interval(x, y, distance, 0, level=0.99)
        assert lower < low < high < higher

    @BOTH
    def test_it_covers_the_true_distance_as_often_as_it_says(self, distance: Distance) -> None:
        y = unit(40, 3, 1)
        truth = float(np.mean([distance(unit(400, 3, 10_000 + s, shift=1), y) for s in range(40)]))
        covered = [
            low <= truth <= high
            for low, high in (
                split_interval(unit(40, 3, s, shift=1), y, distance, s, level=0.9, resamples=300)
                for s in range(200)
            )
        ]
        # 0.90 ± 4 standard errors of 200 draws, less the bootstrap's own error at n = 40
        assert 0.80 < np.mean(covered) < 0.98

    @BOTH
    def test_resamples_are_not_pulled_up_by_images_drawn_twice(self, distance: Distance) -> None:
        x, y = unit(25, 6, 0), unit(25, 6, 1)
        low, high = split_interval(x, y, distance, 0, resamples=4000)
        rng = np.random.default_rng(0)
        plain = np.mean([distance(x[rng.integers(0, 25, 25)], y) for _ in range(300)])
        assert plain > distance(x, y) + 0.15 * (high - low), "the plain bootstrap is biased here"
        assert (low + high) / 2 == pytest.approx(distance(x, y), abs=0.15 * (high - low))

    def test_too_few_images_or_a_level_outside(self) -> None:
        with pytest.raises(ValueError, match="x has 3 images; at least 4"):
            split_interval(unit(3, 2, 0), unit(5, 2, 1), kid, 0)
        with pytest.raises(ValueError, match="level is 95"):
            split_interval(unit(5, 2, 0), unit(5, 2, 1), kid, 0, level=95)

    @QUICK
    @given(sets(least=4), st.integers(0, 100))
    def test_it_is_finite_and_ordered_for_a_handful_of_images(
        self, pair: tuple[np.ndarray, np.ndarray], seed: int
    ) -> None:
        low, high = split_interval(*pair, kid, seed, resamples=200)
        assert math.isfinite(low)
        assert low <= high
