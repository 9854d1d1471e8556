"""How much worse a cell is: bounds that hold, tests that keep their error, however one stops."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_runs import adherence, suppression

from spqr_checks.matrix import ALIGNED, Cell
from spqr_checks.scoring.baseline.regression import (
    Flags,
    Quad,
    Regression,
    flags_of,
    of_drifts,
    of_rates,
    of_values,
    shown_above,
)
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.statistics.paired import mcnemar, newcombe

P = Cell("adherence", ALIGNED, language="en", domain="photo")
flag = st.booleans()
quads = st.lists(st.tuples(flag, flag, flag, flag), min_size=1, max_size=60)
modes = pytest.mark.parametrize("anytime", [False, True])


def flags(values: Sequence[bool]) -> Flags:
    return {("a sign", seed, 0): value for seed, value in enumerate(values)}


def rates(pairs: Sequence[tuple[bool, bool]], anytime: bool = False) -> Regression:
    found = of_rates(flags([b for b, _ in pairs]), flags([a for _, a in pairs]), 0.95, anytime)
    assert found is not None
    return found


def drifts(images: Sequence[Quad], anytime: bool = False) -> Regression:
    found = of_drifts(images, 0.95, anytime)
    assert found is not None
    return found


def bounds(worsening: Regression) -> tuple[float, float]:
    assert worsening.bounds is not None
    return worsening.bounds


# ---- rates -------------------------------------------------------------------------------------


@given(st.lists(st.tuples(flag, flag), min_size=1, max_size=60))
def test_a_fixed_number_of_images_is_tested_by_mcnemar_and_newcombe(
    pairs: list[tuple[bool, bool]],
) -> None:
    found = rates(pairs)
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    table = (pairs.count((True, True)), gained, lost, pairs.count((False, False)))
    assert found.estimate == pytest.approx((gained - lost) / len(pairs))
    assert found.bounds == newcombe(*table, level=0.95, sides=1)
    assert (found.p_worse, found.p_better) == (mcnemar(gained, lost), mcnemar(lost, gained))


@modes
@settings(max_examples=50)
@given(pairs=st.lists(st.tuples(flag, flag), min_size=1, max_size=40))
def test_exchanging_the_runs_exchanges_worse_and_better(
    pairs: list[tuple[bool, bool]], anytime: bool
) -> None:
    one, other = rates(pairs, anytime), rates([(a, b) for b, a in pairs], anytime)
    assert one.p_worse == pytest.approx(other.p_better)
    assert one.estimate == pytest.approx(-other.estimate)
    assert bounds(one) == pytest.approx([-x for x in reversed(bounds(other))], abs=1e-9)
    assert bounds(one)[0] <= one.estimate + 1e-9
    assert one.estimate <= bounds(one)[1] + 1e-9


@settings(max_examples=50)
@given(st.lists(st.tuples(flag, flag), min_size=1, max_size=60), st.floats(0.01, 0.3))
def test_a_margin_makes_being_worse_harder_to_show_and_changes_nothing_else(
    pairs: list[tuple[bool, bool]], margin: float
) -> None:
    one, plain = flags([b for b, _ in pairs]), flags([a for _, a in pairs])
    found = of_rates(one, plain, 0.95, False, margin)
    assert found is not None
    without = rates(pairs)
    assert found.p_worse >= rates(pairs, anytime=True).p_worse - 1e-12
    assert (found.p_better, found.bounds) == (without.p_better, without.bounds)


@pytest.mark.parametrize(("lost", "n"), [(0.0, 48), (0.1, 96), (0.3, 192)])
def test_a_rise_of_just_the_margin_is_shown_to_exceed_it_as_seldom_as_it_should(
    lost: float, n: int
) -> None:
    rng = np.random.default_rng(n)
    drawn = rng.multinomial(n, [lost + 0.05, lost, 0.95 - 2 * lost], 400)
    p = np.array([shown_above(0.05, [1] * g + [-1] * k + [0] * s) for g, k, s in drawn.tolist()])
    assert (p <= 0.05).mean() <= 0.05 + 4 * (0.05 * 0.95 / 400) ** 0.5
    assert (p <= 0.001).mean() <= 0.005


def test_only_images_of_the_same_prompt_and_seed_are_paired() -> None:
    before = {("a", 0, 0): True, ("a", 1, 0): False, ("b", 0, 0): True}
    after = {("b", 0, 0): True, ("a", 1, 0): True, ("c", 0, 0): True}
    found = of_rates(before, after, 0.95, False)
    assert found is not None
    assert found.change == "1 -> 2 of 2 shared images"
    assert of_rates(before, {("c", 0, 0): True}, 0.95, False) is None


def test_flags_are_those_of_the_images() -> None:
    result = suppression(Cell("suppression", ALIGNED, "x", "y", "en", "photo"), 3)
    assert list(flags_of(result).values()) == [image.flagged for image in result.images]


def test_an_unchanged_candidate_is_seldom_accused_however_often_it_is_looked_at() -> None:
    """Both runs draw 12 more images until they have few enough or too many flagged ones."""
    dice = random.Random(1)
    accused = {True: 0, False: 0}
    for _ in range(200):
        runs = [[dice.random() < 0.2 for _ in range(96)] for _ in range(2)]
        stops = [
            next((n for n in range(12, 96, 12) if not 0.12 < sum(run[:n]) / n < 0.35), 96)
            for run in runs
        ]
        pairs = list(zip(*(run[: min(stops)] for run in runs), strict=True))
        for anytime in accused:
            accused[anytime] += rates(pairs, anytime).p_worse <= 0.05
    assert accused[True] / 200 <= 0.05
    assert accused[True] < accused[False]


# ---- drifts ------------------------------------------------------------------------------------


@modes
@settings(max_examples=50)
@given(images=quads)
def test_a_drift_worsens_by_the_difference_of_both_drifts(
    images: list[Quad], anytime: bool
) -> None:
    found = drifts(images, anytime)
    assert found.estimate == pytest.approx(found.after - found.before)
    low, high = bounds(found)
    assert -200 <= low <= found.estimate + 1e-9
    assert found.estimate - 1e-9 <= high <= 200
    swapped = drifts([(r1, t1, r0, t0) for r0, t0, r1, t1 in images], anytime)
    assert found.p_worse == pytest.approx(swapped.p_better)
    assert (low, high) == pytest.approx([-x for x in reversed(bounds(swapped))], abs=1e-6)


@given(st.lists(st.tuples(flag, flag), min_size=1, max_size=60))
def test_where_both_are_alike_as_released_drift_is_what_changed_after_tuning(
    pairs: list[tuple[bool, bool]],
) -> None:
    found = drifts([(False, t0, False, t1) for t0, t1 in pairs])
    assert found.p_worse == pytest.approx(rates(pairs).p_worse)
    assert found.estimate == pytest.approx(100 * rates(pairs).estimate)


def test_a_drift_without_images_is_none() -> None:
    assert of_drifts([], 0.95, False) is None


@pytest.mark.parametrize("luck", [0.0, 0.5, 0.9])
def test_bounds_of_drifts_hold_as_often_as_they_say(luck: float) -> None:
    """Rates 5 % as released, 15 % and 20 % fine-tuned; ``luck``: how much of it images share."""
    dice = np.random.default_rng(2)
    truth, runs, n = 5.0, 300, 120
    below = above = 0
    for _ in range(runs):
        common, own = dice.random((n, 1)), dice.random((n, 4))
        drawn = np.where(dice.random((n, 4)) < luck, common, own)
        low, high = bounds(drifts([tuple(q) for q in (drawn < [0.05, 0.15, 0.05, 0.2]).tolist()]))
        below, above = below + (high < truth), above + (low > truth)
    assert max(below, above) / runs <= 0.07


# ---- values ------------------------------------------------------------------------------------


def value(ratio: float, width: float) -> CellResult:
    n = adherence(P, ratio).n
    return CellResult(P, "pass", 1.0, ratio, (ratio - width, ratio + width), 0.9, "ratio", n)


def test_values_are_compared_as_independent() -> None:
    found = of_values(value(0.9, 0.03), value(0.8, 0.04), 0.95, 0.95)
    assert found.estimate == pytest.approx(0.1)
    assert found.bounds == pytest.approx((0.05, 0.15))
    assert found.p_worse == pytest.approx(4.4e-5, rel=0.02)
    assert found.p_better == pytest.approx(1, abs=1e-3)
    assert found.shared == 0


def test_intervals_of_another_level_are_brought_to_this_one() -> None:
    narrow = of_values(value(0.9, 0.03 * 1.6449 / 1.96), value(0.8, 0.04), 0.95, 0.9)
    wide = of_values(value(0.9, 0.03), value(0.8, 0.04), 0.95, 0.95)
    assert bounds(narrow) == pytest.approx(bounds(wide), abs=1e-4)


def test_a_value_is_held_against_the_margin() -> None:
    found = of_values(value(0.9, 0.03), value(0.8, 0.04), 0.95, 0.95, 0.1)
    assert found.p_worse == pytest.approx(0.5)


@pytest.mark.parametrize(("now", "p_worse"), [(0.9, 0.5), (0.8, 0.0), (1.0, 1.0)])
def test_values_without_uncertainty_are_what_they_are(now: float, p_worse: float) -> None:
    found = of_values(value(0.9, 0.0), value(now, 0.0), 0.95, 0.95)
    assert (found.p_worse, found.p_better) == (p_worse, 1 - p_worse)


def test_digits_that_no_file_holds_do_not_decide() -> None:
    found = of_values(value(0.9123456789, 0.0), value(0.912345999, 0.0), 0.95, 0.95)
    assert (found.estimate, found.p_worse, found.p_better) == (0, 0.5, 0.5)
