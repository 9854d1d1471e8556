"""Newcombe's paired interval against published values and by simulation.

Exact tests against enumeration and scipy; bounds of differences against statsmodels.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial
from statsmodels.stats.proportion import (  # type: ignore[import-untyped]
    confint_proportions_2indep,
)

from spqr_checks.statistics import paired
from spqr_checks.statistics.intervals import wilson
from spqr_checks.statistics.paired import (
    _score,
    difference_bounds,
    mcnemar,
    newcombe,
    paired_tails,
    sign_flips,
)

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


small = st.lists(st.integers(-3, 3), max_size=10)
few = st.integers(0, 400)


@given(few, few)
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


@pytest.mark.heavy
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


@pytest.mark.slow
@pytest.mark.parametrize(("n", "difference"), [(24, 0.1), (12, -0.2), (24, 0.0)])
def test_exact_tests_of_a_paired_difference_keep_their_errors(n: int, difference: float) -> None:
    tables = [(gained, lost) for gained in range(n + 1) for lost in range(n + 1 - gained)]
    p = np.array([paired_tails(*table, n, difference) for table in tables])
    counts = np.array([(gained, lost, n - gained - lost) for gained, lost in tables])
    for losing in np.linspace(max(0.0, -difference), (1 - difference) / 2, 12)[:-1]:
        gaining = losing + difference
        chances = multinomial.pmf(counts, n, [gaining, losing, max(0.0, 1 - gaining - losing)])
        for error in (0.05, 0.05 / 60):
            for side in (0, 1):
                assert chances[p[:, side] <= error].sum() <= error


@pytest.mark.parametrize(("gained", "lost", "n", "difference"), [(3, 1, 9, 0.1), (0, 2, 15, 0.0)])
def test_exact_tests_of_a_paired_difference_sum_all_tables_that_are_as_far_out(
    gained: int, lost: int, n: int, difference: float
) -> None:
    tables = [(up, down) for up in range(n + 1) for down in range(n + 1 - up)]
    ups, downs = np.array(tables).T
    scores = _score(ups, downs, n, difference)
    observed = float(_score(np.array(gained), np.array(lost), n, difference))
    sums = []
    for losing in (1 - difference) / 2 * np.sin(np.linspace(0, np.pi / 2, 49)[:-1]) ** 2:
        rates = [losing + difference, losing, 1 - 2 * losing - difference]
        chances = multinomial.pmf(np.column_stack([ups, downs, n - ups - downs]), n, rates)
        low, high = scores <= observed + 1e-9, scores >= observed - 1e-9
        sums.append((chances[low].sum(), chances[high].sum()))
    assert paired_tails(gained, lost, n, difference) == pytest.approx(np.max(sums, 0), abs=2e-9)


def test_exact_tests_of_a_paired_difference_find_what_is_there() -> None:
    below, above = paired_tails(40, 0, 96, 0.1)
    assert above < 1e-6 < 0.99 < below
    assert paired_tails(0, 0, 48, 0.1)[0] < 0.02
    # between what is known of the direction alone, and of differences without a pair
    assert paired_tails(19, 8, 192, 0.0)[1] == pytest.approx(mcnemar(19, 8), abs=0.015)


@given(st.integers(1, 60), st.data(), st.sampled_from([0.0, 0.02, 0.1, 0.4, 0.9]))
def test_what_is_ruled_out_could_not_have_been_the_largest(
    n: int, data: st.DataObject, difference: float
) -> None:
    gained = data.draw(st.integers(0, n))
    lost = data.draw(st.integers(0, n - gained))
    shown = paired_tails.__wrapped__(gained, lost, n, difference)
    with pytest.MonkeyPatch.context() as patch:  # without bounds every rate is summed up
        patch.setattr(paired, "_tail_bounds", lambda *_: (math.inf, math.inf))
        assert paired_tails.__wrapped__(gained, lost, n, difference) == shown


def test_of_many_pairs_few_rates_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    summed, tails = [], paired._tails
    monkeypatch.setattr(paired, "_tails", lambda *given: summed.append(1) or tails(*given))
    assert paired_tails.__wrapped__(0, 0, 8064, 0.1) == (1e-9, 1.0)
    assert len(summed) <= 3, "of 356"


def test_gaining_less_than_so_much_is_losing_more() -> None:
    assert paired_tails(5, 9, 60, -0.1) == paired_tails(9, 5, 60, 0.1)[::-1]


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_pairs_have_no_p_values(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="pairs"):
        paired_tails(*counts, 0.1)
    with pytest.raises(ValueError, match="between -1 and 1"):
        paired_tails(1, 1, 5, 1.0)
