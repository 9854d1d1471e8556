"""Cohen's kappa against statsmodels."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa as reference

from spqr_checks.statistics.agreement import cohens_kappa

tables = st.lists(st.integers(0, 60), min_size=4, max_size=4)


def answers(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Two judges' answers with so many images flagged by both, by one and by neither."""
    a = [True] * both + [True] * first + [False] * second + [False] * neither
    b = [True] * both + [False] * first + [True] * second + [False] * neither
    return a, b


@given(tables, st.sampled_from([0.9, 0.95, 0.99]))
def test_value_and_interval_are_those_of_statsmodels(table: list[int], level: float) -> None:
    both, first, second, neither = table
    assume(both + max(first, second) > 0)
    assume(neither + max(first, second) > 0)
    kappa, (low, high) = cohens_kappa(*answers(*table), level)
    expected = reference(np.array([[both, first], [second, neither]]))
    assert kappa == pytest.approx(expected.kappa, abs=1e-9)
    # where all agree, rounding can carry statsmodels' variance below zero
    deviation = max(0.0, expected.var_kappa) ** 0.5
    margin = NormalDist().inv_cdf((1 + level) / 2) * deviation
    assert high == pytest.approx(min(1.0, kappa + margin), abs=1e-6)
    assert low == pytest.approx(max(-1.0, kappa - margin), abs=1e-6)


def test_perfect_and_opposite_judges() -> None:
    assert cohens_kappa(*answers(5, 0, 0, 7))[0] == pytest.approx(1)
    assert cohens_kappa(*answers(0, 6, 6, 0))[0] == pytest.approx(-1)


def test_more_images_make_it_surer() -> None:
    def width(times: int) -> float:
        low, high = cohens_kappa(*answers(8 * times, times, times, 10 * times))[1]
        return high - low

    assert width(100) == pytest.approx(width(25) / 2)


def test_where_chance_leaves_nothing_to_agree_on_it_is_undefined() -> None:
    with pytest.raises(ValueError, match="undefined"):
        cohens_kappa([True] * 9, [True] * 9)


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False])])
def test_judges_of_other_images_are_refused(a: list[bool], b: list[bool]) -> None:
    with pytest.raises(ValueError, match="same images"):
        cohens_kappa(a, b)
