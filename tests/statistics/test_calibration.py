"""Rates corrected for the judge's errors: exact where that is known, covering where it is not.

Cohen's kappa against statsmodels.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa as reference

from spqr_checks.statistics.calibration import (
    Calibration,
    apparent_thresholds,
    cohens_kappa,
    corrected_bounds,
    corrected_interval,
    corrected_rate,
    split,
)
from spqr_checks.statistics.intervals import clopper_pearson

GOOD = Calibration(flagged=90, unsafe=100, passed=190, safe=200)
rates = st.floats(0, 1)
calibrations = st.builds(
    lambda flagged, missed, passed, wrong: Calibration(
        flagged, flagged + missed, passed, passed + wrong
    ),
    *(st.integers(1, 80), st.integers(0, 20)) * 2,
)


def better_than_chance(calibration: Calibration) -> bool:
    return calibration.sensitivity + calibration.specificity > 1


class TestCorrectedRate:
    @given(rates, calibrations)
    def test_undoes_what_the_judge_does(self, true: float, calibration: Calibration) -> None:
        se, sp = calibration.sensitivity, calibration.specificity
        assume(se + sp > 1.01)
        apparent = true * se + (1 - true) * (1 - sp)
        assert corrected_rate(apparent, calibration) == pytest.approx(true, abs=1e-9)

    def test_a_perfect_judge_changes_nothing(self) -> None:
        assert corrected_rate(0.3, Calibration(9, 9, 9, 9)) == pytest.approx(0.3)

    def test_is_rogan_and_gladens(self) -> None:
        assert corrected_rate(0.2, GOOD) == pytest.approx((0.2 - 0.05) / 0.85)

    def test_stays_a_rate(self) -> None:
        assert corrected_rate(0.01, GOOD) == 0.0
        assert corrected_rate(0.99, GOOD) == 1.0

    @pytest.mark.parametrize("judge", [Calibration(1, 2, 1, 2), Calibration(1, 10, 1, 10)])
    def test_a_judge_no_better_than_chance_is_refused(self, judge: Calibration) -> None:
        for call in (
            lambda: corrected_rate(0.2, judge),
            lambda: corrected_interval(2, 10, judge),
            lambda: corrected_bounds((0.1, 0.2), judge, 0.01),
            lambda: apparent_thresholds(0.2, judge, 0.01, 0.01),
        ):
            with pytest.raises(ValueError, match="no better than chance"):
                call()

    @pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
    def test_only_rates_are_taken(self, rate: float) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            corrected_rate(rate, GOOD)


@pytest.mark.parametrize("counts", [(0, 0, 5, 5), (5, 5, 0, 0), (6, 5, 5, 5), (-1, 5, 5, 5)])
def test_labels_of_both_kinds_are_needed(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="both kinds"):
        Calibration(*counts)


class TestInterval:
    @given(calibrations, st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.9, 0.95]))
    def test_lies_in_range(
        self, calibration: Calibration, n: int, share: float, level: float
    ) -> None:
        assume(better_than_chance(calibration))
        low, high = corrected_interval(round(share * n), n, calibration, level)
        assert 0 <= low <= high <= 1

    def test_is_that_of_the_paper(self) -> None:
        """Worked out step by step for 40 of 150 images."""
        z = NormalDist().inv_cdf(0.975)
        n, q = 150 + z**2, (40 + z**2 / 2) / (150 + z**2)
        se, sp = 91 / 102, 191 / 202
        p = (q + sp - 1) / (se + sp - 1)
        shift = 2 * z**2 * (p * se * (1 - se) / 102 - (1 - p) * sp * (1 - sp) / 202)
        deviation = math.sqrt(
            q * (1 - q) / n + p**2 * se * (1 - se) / 102 + (1 - p) ** 2 * sp * (1 - sp) / 202
        ) / (se + sp - 1)
        expected = (p + shift - z * deviation, p + shift + z * deviation)
        assert corrected_interval(40, 150, GOOD) == pytest.approx(expected)

    def test_fewer_labels_say_less(self) -> None:
        def width(calibration: Calibration) -> float:
            low, high = corrected_interval(40, 150, calibration)
            return high - low

        assert width(Calibration(9, 10, 19, 20)) > 1.3 * width(GOOD)

    @pytest.mark.parametrize("true", [0.1, 0.2, 0.5])
    @pytest.mark.parametrize(("se", "sp"), [(0.8, 0.9), (0.9, 0.8), (0.95, 0.95)])
    def test_holds_the_true_rate_as_often_as_it_says(
        self, true: float, se: float, sp: float
    ) -> None:
        rng = np.random.default_rng(0)
        runs = 3000
        k = rng.binomial(150, true * se + (1 - true) * (1 - sp), runs)
        flagged, passed = rng.binomial(100, se, runs), rng.binomial(100, sp, runs)
        hits = 0
        for images, hit, right in zip(k.tolist(), flagged.tolist(), passed.tolist(), strict=True):
            low, high = corrected_interval(images, 150, Calibration(hit, 100, right, 100))
            hits += low <= true <= high
        assert 0.93 <= hits / runs <= 0.98


class TestBounds:
    @given(calibrations, st.tuples(rates, rates))
    def test_are_the_extremes_over_the_box(
        self, calibration: Calibration, pair: tuple[float, float]
    ) -> None:
        assume(better_than_chance(calibration))
        low, high = min(pair), max(pair)
        (se_low, se_high), (sp_low, sp_high) = calibration.box(0.01)
        found = corrected_bounds((low, high), calibration, 0.01)
        if se_low + sp_low <= 1:
            assert found == (0.0, 1.0)
            return
        corners = [
            min(1.0, max(0.0, (q + sp - 1) / (se + sp - 1)))
            for q in (low, high)
            for se in (se_low, se_high)
            for sp in (sp_low, sp_high)
        ]
        assert found == pytest.approx((min(corners), max(corners)), abs=1e-9)

    def test_bounds_in_the_wrong_order_are_refused(self) -> None:
        with pytest.raises(ValueError, match="no bounds"):
            corrected_bounds((0.3, 0.2), GOOD, 0.01)


class TestThresholds:
    def test_use_the_bounds_that_are_worst_for_each_side(self) -> None:
        low, high = apparent_thresholds(0.2, GOOD, 0.01, 0.002)
        se, sp = clopper_pearson(90, 100, 0.995), clopper_pearson(190, 200, 0.995)
        assert low == pytest.approx(0.2 * se[0] + 0.8 * (1 - sp[1]))
        se, sp = clopper_pearson(90, 100, 0.999), clopper_pearson(190, 200, 0.999)
        assert high == pytest.approx(0.2 * se[1] + 0.8 * (1 - sp[0]))

    @given(rates, calibrations)
    def test_lie_on_both_sides_of_the_estimate(self, t: float, calibration: Calibration) -> None:
        se, sp = calibration.sensitivity, calibration.specificity
        assume(se + sp > 1)
        try:
            low, high = apparent_thresholds(t, calibration, 0.01, 0.01)
        except ValueError:
            assume(False)
        assert low - 1e-12 <= t * se + (1 - t) * (1 - sp) <= high + 1e-12

    @pytest.mark.parametrize(("se", "sp"), [(0.7, 0.9), (0.9, 0.7), (0.99, 0.98)])
    def test_hold_the_flagged_rate_of_the_threshold_but_with_their_errors(
        self, se: float, sp: float
    ) -> None:
        rng, runs, t = np.random.default_rng(1), 4000, 0.2
        pairs = zip(rng.binomial(80, se, runs), rng.binomial(60, sp, runs), strict=True)
        flagged = t * se + (1 - t) * (1 - sp)
        found = [
            apparent_thresholds(t, Calibration(int(hit), 80, int(right), 60), 0.05, 0.02)
            for hit, right in pairs
        ]
        # three standard errors of 4000 runs: 0.010 and 0.007
        assert np.mean([low > flagged for low, _ in found]) <= 0.05
        assert np.mean([high < flagged for _, high in found]) <= 0.02

    def test_too_few_labels_let_nothing_pass(self) -> None:
        with pytest.raises(ValueError, match="too few labelled images"):
            apparent_thresholds(0.2, Calibration(3, 4, 3, 4), 0.01, 0.01)

    def test_at_an_error_too_small_for_the_labels_nothing_fails(self) -> None:
        few = Calibration(9, 10, 10, 10)
        assert apparent_thresholds(0.2, few, 0.05, 1e-9)[1] == 1.0

    @given(st.floats(0.001, 0.5))
    def test_an_error_is_split_without_rest(self, error: float) -> None:
        images, judge = split(error)
        assert images + judge == pytest.approx(error)
        assert 0 < judge < images


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
