"""Bootstrap intervals against scipy's, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spqr_checks.statistics.bootstrap import RatioOfMeans
from spqr_checks.statistics.intervals import Interval

finite = st.floats(-1e6, 1e6)


def skewed(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(1.0, n)


def ratio_of_means(
    a: Sequence[float], b: Sequence[float], *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Interval:
    return RatioOfMeans(a, b, seed=seed, resamples=resamples).interval(level)


def mean_interval(
    values: Sequence[float], *, seed: int, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """The mean as a ratio to pairs of one."""
    ones = [1.0] * len(values)
    return ratio_of_means(values, ones, seed=seed, level=level, resamples=resamples)


def paired(n: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    common = generator.normal(0.30, 0.04, n)
    return common + generator.normal(-0.01, 0.01, n), common


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_of_a_mean_agrees_with_scipys(level: float) -> None:
    values = skewed(40)
    reference = stats.bootstrap(
        (values,),
        np.mean,
        method="BCa",
        confidence_level=level,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    found = mean_interval(values, seed=2, level=level, resamples=20_000)
    width = reference.high - reference.low
    assert found == pytest.approx((reference.low, reference.high), abs=0.03 * width)


def test_the_interval_of_a_ratio_agrees_with_scipys_paired_bootstrap() -> None:
    a, b = paired(48)
    reference = stats.bootstrap(
        (a, b),
        lambda x, y, axis: np.mean(x, axis=axis) / np.mean(y, axis=axis),
        paired=True,
        vectorized=True,
        method="BCa",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    found = ratio_of_means(a, b, seed=2, resamples=20_000)
    width = reference.high - reference.low
    assert found == pytest.approx((reference.low, reference.high), abs=0.03 * width)


def test_bca_and_percentile_differ_on_skewed_data() -> None:
    """Guards the comparison with scipy against a bca that only calls itself so."""
    bca = mean_interval(skewed(40), seed=2, resamples=20_000)
    percentile = stats.bootstrap(
        (skewed(40),),
        np.mean,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert bca[1] - percentile.high > 0.05 * (percentile.high - percentile.low)


def test_pairs_are_kept_together() -> None:
    """Breaking the pairs must widen the interval by far."""
    a, b = paired(48)
    low, high = ratio_of_means(a, b, seed=0)
    broken_low, broken_high = ratio_of_means(np.sort(a), np.sort(b)[::-1], seed=0)
    assert high - low < 0.2 * (broken_high - broken_low)


def test_a_mean_is_covered_about_95_times_in_100() -> None:
    inside = 0
    for seed in range(300):
        low, high = mean_interval(skewed(60, seed), seed=seed, resamples=400)
        inside += low <= 1.0 <= high
    assert 0.89 <= inside / 300 <= 0.99


def test_equal_seeds_give_equal_intervals_and_other_seeds_others() -> None:
    values = skewed(40)
    assert mean_interval(values, seed=5) == mean_interval(values, seed=5)
    assert mean_interval(values, seed=5) != mean_interval(values, seed=6)


@given(st.lists(finite, min_size=2, max_size=30))
@settings(max_examples=60)
def test_the_interval_lies_within_the_data(values: list[float]) -> None:
    low, high = mean_interval(values, seed=0, resamples=200)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= low <= high <= max(values) + slack


@given(finite, st.integers(2, 20))
@settings(max_examples=30)
def test_constant_data_have_an_interval_without_width(value: float, n: int) -> None:
    assert mean_interval([value] * n, seed=0, resamples=100) == pytest.approx((value, value))


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=30), st.floats(0.1, 10))
@settings(max_examples=60)
def test_the_ratio_follows_the_scale_of_its_numerator(values: list[float], scale: float) -> None:
    b = [v + 1 for v in values]
    plain = ratio_of_means(values, b, seed=1, resamples=200)
    scaled = ratio_of_means([scale * v for v in values], b, seed=1, resamples=200)
    # a quantile between two draws may move where draws tie up to rounding, as all are then alike
    assert scaled == pytest.approx([scale * bound for bound in plain], rel=1e-6)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf], [[1.0], [2.0]]])
def test_too_few_or_broken_values_are_refused(values: Sequence[float]) -> None:
    with pytest.raises(ValueError, match="bootstrap needs"):
        mean_interval(values, seed=0)
    with pytest.raises(ValueError, match="bootstrap needs"):
        ratio_of_means(values, [1.0, 1.0], seed=0)
    with pytest.raises(ValueError, match="bootstrap needs"):
        ratio_of_means([1.0, 1.0], values, seed=0)


def test_a_ratio_needs_pairs() -> None:
    with pytest.raises(ValueError, match="pairs"):
        ratio_of_means([1.0, 2.0], [1.0, 2.0, 3.0], seed=0)


@pytest.mark.parametrize("b", [[0.0, 0.0], [-1.0, 1.5], [-0.3, -0.2]])
def test_a_ratio_over_a_mean_that_may_be_zero_is_refused(b: list[float]) -> None:
    with pytest.raises(ValueError, match="not clearly positive"):
        ratio_of_means([0.3, 0.3], b, seed=0)


def test_values_that_overflow_are_refused() -> None:
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="too large"):
        mean_interval([1.7e308, 1.6e308, 1.5e308], seed=0)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="level"):
        mean_interval([1.0, 2.0], seed=0, level=95)
    with pytest.raises(ValueError, match="too few"):
        mean_interval([1.0, 2.0], seed=0, resamples=10)
