"""Newcombe's paired interval against published values and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.proportion import (  # type: ignore[import-untyped]
    confint_proportions_2indep,
)

from spqr_checks.statistics.paired import newcombe

count = st.integers(0, 200)
tables = st.tuples(count, count, count, count)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # Newcombe 1998, Statistics in Medicine 17:2635, worked examples, method 10
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((36, 14, 0, 0), (0.1528, 0.4167)),
        ((54, 0, 0, 0), (-0.0664, 0.0664)),
        ((0, 54, 0, 0), (0.9061, 1.0000)),
        # Altman et al. 2000, Statistics with Confidence, table 6.2
        ((14, 5, 0, 22), (0.0115, 0.2265)),
        # Fagerland, Lydersen and Laake 2017, Statistical Analysis of Contingency Tables, ch. 8,
        # "Newcombe square-and-add"; the last as tested in the authors' R package
        ((1, 1, 7, 12), (-0.5069, -0.0256)),
        ((59, 6, 16, 80), (-0.1186, -0.0046)),
        ((1, 0, 0, 1), (-0.5734, 0.5734)),
    ],
)
def test_published_intervals_are_reproduced(
    table: tuple[int, int, int, int], expected: tuple[float, float]
) -> None:
    assert newcombe(*table) == pytest.approx(expected, abs=6e-5)


@given(st.integers(1, 500), st.data())
def test_without_correlation_it_is_the_interval_of_independent_rates(
    n: int, data: st.DataObject
) -> None:
    """All events after and none or some before: a margin is empty, so phi is zero."""
    before = data.draw(st.integers(0, n))
    expected = confint_proportions_2indep(n, n, before, n, method="newcomb", compare="diff")
    assert newcombe(before, n - before, 0, 0) == pytest.approx(
        np.clip(expected, -1, 1).tolist(), abs=1e-9
    )


@given(tables)
def test_the_interval_holds_the_observed_drift(table: tuple[int, int, int, int]) -> None:
    assume(sum(table) > 0)
    low, high = newcombe(*table)
    drift = (table[1] - table[2]) / sum(table)
    assert -1 <= low <= drift + 1e-12
    assert drift - 1e-12 <= high <= 1


@given(tables)
def test_swapping_before_and_after_mirrors_the_interval(table: tuple[int, int, int, int]) -> None:
    assume(sum(table) > 0)
    both, gained, lost, neither = table
    low, high = newcombe(both, gained, lost, neither)
    assert newcombe(both, lost, gained, neither) == pytest.approx((-high, -low), abs=1e-12)


@given(tables)
def test_one_sided_bounds_lie_inside_the_two_sided_interval(
    table: tuple[int, int, int, int],
) -> None:
    assume(sum(table) > 0)
    low, high = newcombe(*table)
    inner_low, inner_high = newcombe(*table, sides=1)
    assert low <= inner_low + 1e-12
    assert inner_high <= high + 1e-12


def test_pairing_narrows_the_interval_where_images_agree() -> None:
    """Equal margins (30 of 100), once with concordant and once with unrelated pairs."""
    concordant = newcombe(28, 2, 2, 68)
    unrelated = newcombe(9, 21, 21, 49)
    assert concordant[1] - concordant[0] < 0.5 * (unrelated[1] - unrelated[0])


@pytest.mark.parametrize(
    ("cells", "n", "at_most"),
    [
        ((0.05, 0.05, 0.02, 0.88), 24, 1.0),  # few events: known to be conservative
        ((0.05, 0.05, 0.02, 0.88), 400, 0.98),
        ((0.4, 0.1, 0.1, 0.4), 24, 0.98),
        ((0.4, 0.1, 0.1, 0.4), 120, 0.97),
        ((0.1, 0.5, 0.1, 0.3), 120, 0.97),
    ],
)
def test_the_interval_covers_the_truth_about_95_times_in_100(
    cells: tuple[float, ...], n: int, at_most: float
) -> None:
    truth = cells[1] - cells[2]
    drawn = np.random.default_rng(7).multinomial(n, cells, size=4000)
    tables, weights = np.unique(drawn, axis=0, return_counts=True)
    covered = 0
    for table, weight in zip(tables.tolist(), weights.tolist(), strict=True):
        low, high = newcombe(*table)
        covered += weight * (low <= truth <= high)
    assert 0.935 <= covered / 4000 <= at_most


@pytest.mark.parametrize("table", [(0, 0, 0, 0), (-1, 2, 2, 2), (2, 2, 2, -1)])
def test_impossible_tables_are_refused(table: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"count|trial"):
        newcombe(*table)
