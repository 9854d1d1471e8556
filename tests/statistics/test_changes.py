"""Exact tests of signs against enumeration and scipy; bounds of differences against statsmodels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.proportion import (  # type: ignore[import-untyped]
    confint_proportions_2indep,
)

from spqr_checks.statistics.changes import difference_bounds, mcnemar, sign_flips
from spqr_checks.statistics.intervals import wilson

small = st.lists(st.integers(-3, 3), max_size=10)
count = st.integers(0, 400)


@given(count, count)
def test_mcnemar_is_the_binomial_test_of_discordant_pairs(gained: int, lost: int) -> None:
    assume(gained + lost > 0)
    expected = binomtest(gained, gained + lost, alternative="greater").pvalue
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_without_a_changed_pair_nothing_is_shown() -> None:
    assert mcnemar(0, 0) == sign_flips([]) == sign_flips([0, 0]) == 1


@given(small)
def test_sign_flips_are_what_enumeration_gives(differences: list[int]) -> None:
    assignments = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in assignments]
    expected = sum(total >= sum(differences) for total in sums) / len(sums)
    assert sign_flips(differences) == pytest.approx(expected, abs=1e-12)


@given(small)
def test_at_least_one_of_both_directions_is_not_shown(differences: list[int]) -> None:
    assert sign_flips(differences) + sign_flips([-d for d in differences]) >= 1


def test_many_pairs_are_no_burden() -> None:
    assert mcnemar(2000, 2000) == pytest.approx(0.5, abs=0.01)
    assert mcnemar(3000, 0) == 0  # below the smallest float
    assert sign_flips([2] * 200 + [-1] * 400) == pytest.approx(0.5, abs=0.02)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_bounds_of_two_rates_are_newcombe_s(n: int, m: int, data: st.DataObject) -> None:
    k, j = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    bounds = difference_bounds(k / n, wilson(k, n), j / m, wilson(j, m))
    expected = confint_proportions_2indep(k, n, j, m, method="newcomb", compare="diff")
    assert bounds == pytest.approx(expected, abs=1e-9)


def test_correlation_narrows_and_anticorrelation_widens() -> None:
    def width(correlation: float) -> float:
        low, high = difference_bounds(0.5, (0.4, 0.6), 0.3, (0.2, 0.4), correlation)
        return high - low

    assert width(0.9) < width(0.0) < width(-0.9)


@pytest.mark.parametrize("counts", [(-1, 0), (0, -1)])
def test_negative_counts_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="negative"):
        mcnemar(*counts)


def test_the_test_of_signs_keeps_its_error() -> None:
    dice = np.random.default_rng(3)
    rejected = [
        sign_flips([int(d) for d in dice.choice([-2, -1, 0, 0, 0, 0, 1, 2], 60)]) <= 0.05
        for _ in range(600)
    ]
    assert 0.02 <= np.mean(rejected) <= 0.065
