"""Bootstrap intervals of distances over the images under test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from feature_sets import gaussian, sets, split_interval, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.metrics.distances import Distance, distance_named, resampled

cmmd, fid, kid = distance_named("cmmd"), distance_named("fid"), distance_named("kid")
QUICK = settings(max_examples=30, deadline=None)
KERNELS = pytest.mark.parametrize("distance", [kid, cmmd], ids=lambda d: d.name)
ALL = pytest.mark.parametrize("distance", [kid, cmmd, fid], ids=lambda d: d.name)


class TestSplitInterval:
    @ALL
    def test_it_repeats_with_its_seed(self, distance: Distance) -> None:
        x, y = unit(30, 4, 0, shift=1), unit(40, 4, 1)
        assert split_interval(x, y, distance, 3) == split_interval(x, y, distance, 3)
        assert split_interval(x, y, distance, 3) != split_interval(x, y, distance, 4)

    @ALL
    def test_it_surrounds_the_distance_and_narrows_with_images(self, distance: Distance) -> None:
        y = unit(60, 4, 1)
        widths = []
        for n in (20, 80, 320):
            x = unit(n, 4, 0, shift=1)
            low, high = split_interval(x, y, distance, 0)
            assert low < distance(x, y) < high
            widths.append(high - low)
        assert widths[0] > 1.5 * widths[1] > 1.5**2 * widths[2]

    @ALL
    def test_a_higher_level_is_wider(self, distance: Distance) -> None:
        x, y = unit(30, 4, 0, shift=1), unit(40, 4, 1)
        low, high = split_interval(x, y, distance, 0, level=0.5)
        lower, higher = split_interval(x, y, distance, 0, level=0.99)
        assert lower < low < high < higher

    @KERNELS
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

    @KERNELS
    def test_resamples_are_not_pulled_up_by_images_drawn_twice(self, distance: Distance) -> None:
        x, y = unit(25, 6, 0), unit(25, 6, 1)
        low, high = split_interval(x, y, distance, 0, resamples=4000)
        rng = np.random.default_rng(0)
        plain = np.mean([distance(x[rng.integers(0, 25, 25)], y) for _ in range(300)])
        assert plain > distance(x, y) + 0.15 * (high - low), "the plain bootstrap is biased here"
        assert (low + high) / 2 == pytest.approx(distance(x, y), abs=0.15 * (high - low))

    def test_too_few_images(self) -> None:
        with pytest.raises(ValueError, match="x has 3 images; at least 4"):
            split_interval(unit(3, 2, 0), unit(5, 2, 1), kid, 0)

    @ALL
    def test_sets_of_equal_size_are_resampled_jointly(self, distance: Distance) -> None:
        x, y = unit(30, 4, 0, shift=1), unit(40, 4, 1)
        moved = x + np.random.default_rng(0).normal(0, 0.02, x.shape)
        one, other = (resampled(rows, y, distance, 0) for rows in (x, moved))
        assert np.corrcoef(one, other)[0, 1] > 0.9
        assert np.corrcoef(one, resampled(moved, y, distance, 1))[0, 1] < 0.2

    @ALL
    def test_images_of_a_cluster_are_drawn_together(self, distance: Distance) -> None:
        rng = np.random.default_rng(2)
        prompts = [f"prompt {i // 6}" for i in range(60)]
        x = np.repeat(unit(10, 4, 0, shift=1), 6, 0) + rng.normal(0, 0.05, (60, 4))
        y = unit(40, 4, 1)
        whole = resampled(x, y, distance, 0, clusters=prompts)
        assert whole.std() > 1.5 * resampled(x, y, distance, 0).std()
        # one prompt an image is no cluster
        apart = [str(i) for i in range(60)]
        assert (resampled(x, y, distance, 0, clusters=apart) == resampled(x, y, distance, 0)).all()

    @ALL
    @QUICK
    @given(sets(least=4), st.integers(0, 100))
    def test_it_is_finite_and_ordered_for_a_handful_of_images(
        self, distance: Distance, pair: tuple[np.ndarray, np.ndarray], seed: int
    ) -> None:
        low, high = split_interval(*pair, distance, seed, resamples=50)
        assert math.isfinite(low)
        assert low <= high


class TestFrechet:
    @pytest.mark.heavy
    @pytest.mark.parametrize(("n", "d"), [(40, 8), (24, 48)], ids=["n > d", "n < d"])
    def test_it_covers_the_expectation_at_this_number_of_images(self, n: int, d: int) -> None:
        y = gaussian(60, d, 1)
        truth = float(np.mean([fid(gaussian(n, d, 10_000 + s, shift=1), y) for s in range(150)]))
        covered, plainly = [], []
        for seed in range(50):
            x = gaussian(n, d, seed, shift=1)
            values = resampled(x, y, fid, seed, resamples=120)
            covered.append(_holds(values, truth))
            drawn = np.random.default_rng(seed).integers(0, n, (40, n))
            plainly.append(_holds(np.array([fid(x[rows], y) for rows in drawn]), truth))
        assert np.mean(covered) > 0.76, "0.9 less 3.3 standard errors of 50 draws"
        assert np.mean(plainly) < np.mean(covered) - 0.15, "there the bias is counted twice"

    @pytest.mark.parametrize(("n", "m", "d"), [(12, 20, 5), (12, 20, 30), (30, 8, 12)])
    def test_a_resample_is_the_distance_of_the_images_drawn(self, n: int, m: int, d: int) -> None:
        x, y = gaussian(n, d, 0, shift=1), gaussian(m, d, 1)
        counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=9)
        found = fid.resampled(x, y, counts.astype(np.float64))
        direct = np.array([fid(np.repeat(x, c, axis=0), y) for c in counts])
        np.testing.assert_allclose(found, direct - direct.mean() + fid(x, y), rtol=1e-6)


def _holds(values: np.ndarray, truth: float) -> bool:
    low, high = np.quantile(values, [0.05, 0.95])
    return bool(low <= truth <= high)
