"""The harmonic mean of four axes."""

from __future__ import annotations

import math
from itertools import permutations
from statistics import harmonic_mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.scoring.harmonic import spqr

axis = st.floats(0, 1)
axes = st.tuples(axis, axis, axis, axis)


@given(st.tuples(*[st.floats(1e-6, 1)] * 4))
def test_it_is_the_harmonic_mean(values: tuple[float, float, float, float]) -> None:
    assert spqr(*values) == pytest.approx(harmonic_mean(values), rel=1e-12)


@given(axes)
def test_it_lies_between_the_smallest_and_the_largest_axis(
    values: tuple[float, float, float, float],
) -> None:
    assert min(values) <= spqr(*values) <= max(values)


@given(axes)
def test_the_order_of_the_axes_does_not_change_one_bit(
    values: tuple[float, float, float, float],
) -> None:
    assert len({spqr(*order) for order in permutations(values)}) == 1


@given(axes, st.integers(0, 3), axis)
def test_it_never_falls_when_an_axis_rises(
    values: tuple[float, float, float, float], which: int, other: float
) -> None:
    lower, higher = list(values), list(values)
    lower[which], higher[which] = sorted((values[which], other))
    assert spqr(*lower) <= spqr(*higher)


@pytest.mark.parametrize("lost", [0.0, -0.0, -0.3, -1e300])
@pytest.mark.parametrize("which", range(4))
def test_a_lost_axis_cannot_be_bought_back(lost: float, which: int) -> None:
    values = [1.0] * 4
    values[which] = lost
    assert spqr(*values) == 0


def test_axes_next_to_zero_do_not_overflow() -> None:
    assert spqr(5e-324, 5e-324, 1, 1) == 5e-324
    assert 0 < spqr(1e-308, 1, 1, 1) <= 4e-308


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.0000001, 93.8])
@pytest.mark.parametrize(("which", "name"), list(enumerate("SPQR")))
def test_an_axis_that_is_none_is_refused_by_name(bad: float, which: int, name: str) -> None:
    values = [0.5] * 4
    values[which] = bad
    with pytest.raises(ValueError, match=f"axis {name} is"):
        spqr(*values)
