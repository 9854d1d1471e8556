"""Student's t against scipy, and its anytime version against what defines it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from spqr_checks.statistics.student import critical, e_value, p_value, tail


@given(st.floats(-50, 50), st.integers(1, 2000))
def test_tails_are_scipys(t: float, degrees: int) -> None:
    expected = stats.t.sf(t, degrees)
    assert float(tail(t, degrees)) == pytest.approx(expected, rel=1e-9, abs=1e-290)


def test_the_critical_value_is_where_the_p_value_is_the_error() -> None:
    assert critical(23, 0.025) == pytest.approx(stats.t.isf(0.025, 23), abs=1e-6)
    assert p_value(95, anytime=True)(critical(95, 0.01, anytime=True)) == pytest.approx(0.01)
    assert critical(1, 0.001, anytime=True) == np.inf, "two observations never show it"


@pytest.mark.parametrize(("n", "t"), [(2, 0.5), (12, -1.0), (48, 2.5), (192, 4.0)])
def test_the_capital_is_a_mixture_of_likelihood_ratios(n: int, t: float) -> None:
    # of the non-central t distribution over the central one, over half-normal effects
    def weighted(effect: float) -> float:
        ratio = stats.nct.pdf(t, n - 1, effect * np.sqrt(n)) / stats.t.pdf(t, n - 1)
        return float(ratio * stats.halfnorm.pdf(effect, scale=0.3))

    expected = integrate.quad(weighted, 0, 2.5)[0]
    assert float(e_value(t, n)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_mean_of_nothing_is_hardly_ever_shown_at_whatever_time() -> None:
    values = np.random.default_rng(0).normal(size=(2000, 384))
    looks = range(24, 385, 24)
    ever, tested = np.zeros((2, 2000), bool)
    for n in looks:
        first = values[:, :n]
        t = first.mean(1) / first.std(1, ddof=1) * np.sqrt(n)
        ever |= e_value(t, n) >= 20
        tested |= tail(t, n - 1) <= 0.05
    assert ever.mean() <= 0.05
    assert tested.mean() > 0.12, "a test for one look, looked at again and again, errs"
