"""Numbers have no more digits than their intervals support."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.reports.rounding import exact, last_digit, rounded, widened

bounds = st.floats(-100, 100)
intervals = st.tuples(bounds, bounds).map(lambda pair: (min(pair), max(pair)))


@pytest.mark.parametrize(
    ("value", "interval", "text", "low", "high"),
    [
        (0.0833, (0.03, 0.21), "0.1", "0.03", "0.21"),
        (0.948, (0.937, 0.955), "0.95", "0.937", "0.955"),
        (0.041667, (0.007393, 0.202418), "0.0", "0.00", "0.21"),
        (6.25, (-1.5, 4.25), "6", "-1.5", "4.3"),
        (6.25, (-1.5, 14.25), "10", "-2", "15"),
        (-0.001, (-0.1, 0.1), "0.0", "-0.10", "0.10"),
        (0.5, (0.5, 0.5), "0.500000", "0.500000", "0.500000"),
    ],
)
def test_a_value_keeps_the_first_digit_of_its_interval_s_width(
    value: float, interval: tuple[float, float], text: str, low: str, high: str
) -> None:
    assert f"{rounded(value, interval):f}" == text
    assert tuple(f"{bound:f}" for bound in widened(interval)) == (low, high)


def test_without_an_interval_there_are_three_decimals() -> None:
    assert str(rounded(0.12345, None)) == "0.123"


@given(intervals)
def test_written_intervals_hold_the_real_ones_and_little_more(
    interval: tuple[float, float],
) -> None:
    low, high = widened(interval)
    real_low, real_high = map(exact, interval)
    assert low <= real_low
    assert real_high <= high
    assert (real_low - low) + (high - real_high) <= (real_high - real_low) * Decimal("0.2")


@given(st.floats(-100, 100), intervals)
def test_rounding_moves_a_value_by_half_its_interval_at_most(
    value: float, interval: tuple[float, float]
) -> None:
    width = exact(interval[1]) - exact(interval[0])
    assert abs(rounded(value, interval) - exact(value)) <= width / 2
    assert last_digit(interval) <= max(width, Decimal("0.000001"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="cannot be rounded"):
        rounded(value, None)
