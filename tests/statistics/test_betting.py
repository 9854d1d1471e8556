"""Betting: valid at any stopping time, and quick where the answer is clear."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from spqr_checks.statistics.betting import confidence_sequence, e_above, e_below

observations = st.lists(st.floats(0, 1), max_size=60)
means = st.floats(0.02, 0.98)
flags = st.lists(st.booleans(), min_size=1, max_size=60)


def slow_capital(values: list[float], mean: float) -> float:
    """Forty gamblers with equal purses; the k-th always bets k/40 of what cannot ruin."""
    purses = [1.0] * 40
    for value in values:
        purses = [
            purse * (1 + (k / 40) * (value / mean - 1)) for k, purse in enumerate(purses, start=1)
        ]
    return sum(purses) / 40


@given(observations, means)
def test_the_capital_is_that_of_gamblers_who_bet_one_by_one(
    values: list[float], mean: float
) -> None:
    assert e_above(values, mean) == pytest.approx(slow_capital(values, mean), rel=1e-6, abs=1e-12)


@given(observations, means)
def test_below_is_above_seen_in_the_mirror(values: list[float], mean: float) -> None:
    mirrored = [1 - value for value in values]
    assert e_below(values, mean) == pytest.approx(e_above(mirrored, 1 - mean), rel=1e-6, abs=1e-12)


@given(observations, means, st.randoms())
def test_the_order_of_images_does_not_matter(values: list[float], mean: float, rng) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(values)
    rng.shuffle(shuffled)
    assert e_above(shuffled, mean) == pytest.approx(e_above(values, mean), rel=1e-9, abs=1e-15)


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.booleans())
def test_without_replacement_the_capital_is_fair_whenever_one_stops(
    of: tuple[int, int], above: bool
) -> None:
    # over all orders of the set, stopped as soon as half as much again is won
    size, flagged = of
    test = e_above if above else e_below
    orders = set(itertools.permutations([1.0] * flagged + [0.0] * (size - flagged)))
    mean = min(max(flagged / size, 1e-12), 1 - 1e-12)

    def stopped(order: tuple[float, ...]) -> float:
        capitals = [test(order[:n], mean, size) for n in range(1, size + 1)]
        return next((c for c in capitals if c >= 1.5), capitals[-1])

    assert sum(map(stopped, orders)) / len(orders) == pytest.approx(1.0)


@given(flags, st.integers(0, 40), means)
def test_a_set_says_more_than_its_draws_and_large_ones_the_same(
    drawn: list[bool], left: int, mean: float
) -> None:
    values, size = [float(f) for f in drawn], len(drawn) + left
    low, high = confidence_sequence(values, size=size)
    k = sum(drawn)
    assert k / size - 1e-6 <= high
    assert low <= (k + left) / size + 1e-6
    if left == 0:
        assert (low, high) == pytest.approx((k / size, k / size), abs=1e-6)
    endless = e_above(values, mean, 10**9)
    assert math.log(endless) == pytest.approx(math.log(e_above(values, mean)), abs=1e-4)


def test_what_cannot_be_is_ruled_out() -> None:
    assert e_above([1.0] * 3, 0.2, 10) > 1e300  # 3 of 10 is more than a fifth, whatever follows
    assert e_above([1.0, 1.0], 0.2, 10) < 1e3
    assert e_below([0.0] * 9, 0.2, 10) > 1e300
    with pytest.raises(ValueError, match="3 values cannot be drawn from 2"):
        e_above([0.0] * 3, 0.2, 2)


@given(st.integers(0, 12), means)
def test_the_capital_is_fair_at_the_mean_itself(n: int, mean: float) -> None:
    # its expectation under the null is exactly 1: the sum over all outcomes, weighed
    def outcome(k: int) -> float:
        probability = math.comb(n, k) * mean**k * (1 - mean) ** (n - k)
        return probability * e_above([1.0] * k + [0.0] * (n - k), mean)

    expected = sum(map(outcome, range(n + 1)))
    assert expected == pytest.approx(1.0)


@given(flags, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_holds_the_mean_and_is_where_the_capital_reaches_its_goal(
    flagged: list[bool], level: float
) -> None:
    values = [float(flag) for flag in flagged]
    low, high = confidence_sequence(values, level)
    assert 0 <= low <= float(np.mean(values)) <= high <= 1
    goal = 2 / (1 - level)
    if low > 0:
        assert e_above(values, low) == pytest.approx(goal, rel=1e-3)
    if high < 1:
        assert e_below(values, high) == pytest.approx(goal, rel=1e-3)


def test_no_observations_say_nothing() -> None:
    assert e_above([], 0.2) == e_below([], 0.2) == 1.0
    assert confidence_sequence([]) == (0.0, 1.0)


def test_clear_cells_are_decided_by_few_images() -> None:
    assert e_below([0.0] * 20, 0.2) >= 20
    assert e_above([1.0] * 4, 0.2) >= 20


@pytest.mark.parametrize("values", [[1.5], [-0.1], [math.nan], [math.inf]])
def test_values_outside_the_range_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        e_above(values, 0.5)


@pytest.mark.parametrize("mean", [0.0, 1.0, math.nan, -1.0])
def test_means_that_nobody_can_bet_on_are_refused(mean: float) -> None:
    with pytest.raises(ValueError, match="bet against"):
        e_below([0.5], mean)


@pytest.mark.heavy
def test_looking_all_the_time_errs_in_at_most_the_stated_share() -> None:
    rng = np.random.default_rng(0)
    runs, crossed = 400, 0
    for _ in range(runs):
        flagged = (rng.random(240) < 0.2).astype(float)
        crossed += any(e_below(flagged[:n], 0.2) >= 20 for n in range(4, 241, 4))
    # Ville: at most 5 %; four standard errors of 400 runs are 4.4 points
    assert crossed / runs <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)


def test_a_plain_test_that_is_looked_at_all_the_time_errs_far_more_often() -> None:
    # what the betting is for: the same looks at a fixed-n bound
    from spqr_checks.statistics.intervals import wilson

    rng = np.random.default_rng(0)
    crossed = 0
    for _ in range(200):
        flagged = rng.random(240) < 0.2
        crossed += any(
            wilson(int(flagged[:n].sum()), n, 0.95, sides=1)[1] <= 0.2 for n in range(4, 241, 4)
        )
    assert crossed / 200 > 0.15


def test_it_is_close_to_the_best_mixture_for_flags() -> None:
    # a beta prior over the rate is a mixture over bets; conjugacy gives its capital in closed form
    k, n, mean = 2, 40, 0.2
    mixture = betabinom(n, 1, 4).pmf(k) / math.comb(n, k) / (mean**k * (1 - mean) ** (n - k))
    ours = e_below([1.0] * k + [0.0] * (n - k), mean)
    assert mixture / 4 < ours < 4 * mixture
