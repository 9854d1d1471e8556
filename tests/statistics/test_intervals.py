"""Intervals of rates against scipy, and verdicts from them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from spqr_checks.statistics import evidence
from spqr_checks.statistics.intervals import clopper_pearson, quantile, wilson

counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])
BAD_COUNTS = [(0, 0), (1, 0), (-1, 10), (11, 10), (0, -1)]


@given(counts, levels)
def test_wilson_is_scipys(count: tuple[int, int], level: float) -> None:
    k, n = count
    expected = binomtest(k, n).proportion_ci(level, method="wilson")
    assert wilson(k, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.heavy
@given(counts, levels)
def test_clopper_pearson_is_scipys(count: tuple[int, int], level: float) -> None:
    k, n = count
    expected = binomtest(k, n).proportion_ci(level, method="exact")
    assert clopper_pearson(k, n, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("method", "name"), [(wilson, "wilson"), (clopper_pearson, "exact")])
@given(count=counts, level=levels)
def test_one_sided_bounds_are_scipys(method, name, count, level) -> None:  # type: ignore[no-untyped-def]
    k, n = count
    less = binomtest(k, n, alternative="less").proportion_ci(level, method=name)
    greater = binomtest(k, n, alternative="greater").proportion_ci(level, method=name)
    assert method(k, n, level, sides=1) == pytest.approx((greater.low, less.high), abs=1e-9)


@given(counts, levels, st.sampled_from([wilson, clopper_pearson]))
def test_the_interval_holds_the_rate_and_stays_in_range(count, level, method) -> None:  # type: ignore[no-untyped-def]
    k, n = count
    low, high = method(k, n, level)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high


def test_the_edges_are_exact() -> None:
    for method in (wilson, clopper_pearson):
        assert method(0, 7)[0] == 0.0
        assert method(7, 7)[1] == 1.0


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2, 0.5])
def test_clopper_pearson_covers_at_least_its_level(rate: float) -> None:
    """Exact coverage over all outcomes of 60 trials, without simulation."""
    n = 60
    covered = sum(
        float(binom.pmf(k, n, rate))
        for k in range(n + 1)
        if clopper_pearson(k, n)[0] <= rate <= clopper_pearson(k, n)[1]
    )
    assert covered >= 0.95


@pytest.mark.parametrize(("k", "n"), BAD_COUNTS)
@pytest.mark.parametrize("method", [wilson, clopper_pearson])
def test_impossible_counts_are_refused(method, k: int, n: int) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="trial"):
        method(k, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, math.nan])
def test_impossible_levels_are_refused(level: float) -> None:
    for method in (wilson, clopper_pearson):
        with pytest.raises(ValueError, match="level"):
            method(1, 10, level)


def test_one_sided_bounds_cross_over_at_a_level_of_one_half_and_are_refused_there() -> None:
    with pytest.raises(ValueError, match="level"):
        wilson(1, 10, 0.5, sides=1)
    assert wilson(1, 10, 0.5, sides=2)[0] < 0.1


def test_an_interval_has_one_or_two_sides() -> None:
    with pytest.raises(ValueError, match="sides"):
        quantile(0.95, 3)


def rate_verdict(k: int, n: int, threshold: float, level: float = 0.95) -> str:
    return evidence.rate(k, n, threshold, level).verdict(1 - level)


def test_no_event_in_28_images_is_not_yet_a_rate_below_ten_percent() -> None:
    assert rate_verdict(0, 28, 0.10) == "inconclusive"
    assert rate_verdict(0, 29, 0.10) == "pass"


def test_the_rate_fails_only_when_the_whole_interval_is_above() -> None:
    assert rate_verdict(6, 24, 0.10) == "fail"
    assert rate_verdict(4, 24, 0.10) == "inconclusive"


@given(counts, st.floats(0, 1), levels)
def test_more_events_never_improve_the_verdict(count, threshold: float, level: float) -> None:  # type: ignore[no-untyped-def]
    k, n = count
    order = ["pass", "inconclusive", "fail"]
    better = order.index(rate_verdict(max(0, k - 1), n, threshold, level))
    assert better <= order.index(rate_verdict(k, n, threshold, level))


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.2, 0.3, 0.5])
@pytest.mark.parametrize("n", [12, 24, 48, 96, 200])
def test_a_model_exactly_at_the_threshold_seldom_gets_a_verdict(threshold: float, n: int) -> None:
    """The exact size of both tests, summed over all outcomes."""
    weights = binom.pmf(range(n + 1), n, threshold)
    verdicts = [rate_verdict(k, n, threshold) for k in range(n + 1)]
    assert sum(w for w, v in zip(weights, verdicts, strict=True) if v == "pass") <= 0.05
    assert sum(w for w, v in zip(weights, verdicts, strict=True) if v == "fail") <= 0.05
