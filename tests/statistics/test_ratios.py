"""Ratios: Fieller's interval against its definition, and errors and power by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from spqr_checks.statistics.ratios import fieller, ratio

MODES = pytest.mark.parametrize("anytime", [False, True])


def cosines(rng: np.random.Generator, true: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a candidate and its base, spread as CLIP's are: .31 with a deviation of .035."""
    shared = rng.normal(0, 0.025, n)
    base, candidate = (shared + rng.normal(0, 0.025, n) for _ in range(2))
    return true * 0.31 + candidate, 0.31 + base


@MODES
def test_what_is_clear_is_decided(anytime: bool) -> None:
    rng = np.random.default_rng(1)
    base = rng.uniform(0.7, 0.9, 60)
    worse, equal = (share * base + rng.normal(0, 0.01, 60) for share in (0.6, 1.0))
    for values, verdict in ((worse, "fail"), (equal, "pass")):
        found = ratio(values, base, 0.8, 0.95, anytime)
        assert found.verdict(0.05) == verdict
        assert found.interval[0] <= values.mean() / base.mean() <= found.interval[1]


@MODES
def test_the_interval_ends_where_the_test_turns(anytime: bool) -> None:
    a, b = cosines(np.random.default_rng(2), 0.9, 96)
    low, high = ratio(a, b, 0.9, 0.95, anytime).interval
    assert ratio(a, b, low, 0.95, anytime).p_met == pytest.approx(0.025, rel=1e-3)
    assert ratio(a, b, high, 0.95, anytime).p_missed == pytest.approx(0.025, rel=1e-3)


def test_at_a_fixed_number_it_is_the_t_test_of_what_is_left() -> None:
    a, b = cosines(np.random.default_rng(3), 0.85, 48)
    found = ratio(a, b, 0.9, 0.95, anytime=False)
    below = stats.ttest_1samp(a - 0.9 * b, 0, alternative="less").pvalue
    assert found.p_missed == pytest.approx(below, rel=1e-6)


def test_looking_at_any_time_costs_width() -> None:
    a, b = cosines(np.random.default_rng(4), 0.9, 96)
    (low, high), (lowest, highest) = (
        ratio(a, b, 0.9, 0.95, anytime).interval for anytime in (False, True)
    )
    assert lowest < low < high < highest


def test_errors_so_small_that_many_cells_need_them_can_be_told() -> None:
    a, b = cosines(np.random.default_rng(5), 0.2, 48)
    assert ratio(a, b, 0.9, 0.95, anytime=False).p_missed < 0.05 / 6000
    assert ratio(a, b, 0.9, 0.95, anytime=True).p_missed < 0.05 / 6000


def test_a_few_pairs_that_agree_exactly_show_no_more_than_their_number() -> None:
    for n in (2, 4, 8):
        assert ratio([0.3] * n, [0.3] * n, 0.9, 0.95, anytime=False).p_met == 0.5**n
    for anytime in (False, True):
        assert ratio([0.3] * 4, [0.3] * 4, 0.9, 0.95, anytime).interval == (0.0, 2.0)


@MODES
@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        ([1.0], [1.0], "two or more pairs, not 1 and 1"),
        ([1.0, 1.0], [1.0, 1.0, 1.0], "not 2 and 3"),
        ([1.0, math.nan], [1.0, 1.0], "finite"),
        ([1.0, 2.0, 3.0], [-1.0, 1.0, 0.5], "not clearly positive"),
        ([1.0, 2.0, 3.0], [-1.0, -1.1, -0.9], "not clearly positive"),
    ],
)
def test_what_does_not_determine_a_ratio_is_refused(
    a: list[float], b: list[float], match: str, anytime: bool
) -> None:
    with pytest.raises(ValueError, match=match):
        ratio(a, b, 0.9, 0.95, anytime)


@pytest.mark.slow
def test_fiellers_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(2000):
        a, b = cosines(rng, 0.9, 24)
        low, high = ratio(a, b, 0.9, 0.95, anytime=False).interval
        covered.append(low <= 0.9 <= high)
    assert float(np.mean(covered)) == pytest.approx(0.95, abs=0.02)


def test_what_differs_by_rounding_alone_does_not_differ() -> None:
    means, nothing = np.array([0.9, 1.0]), np.zeros((2, 2))
    assert fieller(means, nothing, 9, 0.3 * 3, 0.95).p_met > 0.1


def decided(true: float, cells: int, runs: int) -> dict[str, float]:
    """Shares of verdicts of adherence against 90 %, in looks of 48, 384 pairs at most."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(runs):
        a, b = cosines(rng, true, 384)
        for n in range(48, 385, 48):
            verdict = ratio(a[:n], b[:n], 0.9, 0.95, anytime=True).verdict(0.05, 0.05 / cells)
            if verdict != "inconclusive":
                break
        found.append((verdict, n))
    verdicts = [verdict for verdict, _ in found]
    return {v: verdicts.count(v) / runs for v in ("pass", "fail", "inconclusive")} | {
        "images": float(np.mean([n for _, n in found]))
    }


@pytest.mark.slow
@pytest.mark.parametrize("cells", [1, 60])
def test_a_candidate_a_twentieth_below_its_threshold_is_found_out(cells: int) -> None:
    found = decided(0.85, cells, 200)
    assert found["fail"] >= 0.9
    assert found["images"] < 192


@pytest.mark.slow
def test_a_candidate_at_its_threshold_passes_and_fails_in_at_most_one_run_of_twenty() -> None:
    found = decided(0.9, 1, 600)
    slack = 4 * math.sqrt(0.05 * 0.95 / 600)
    assert found["pass"] <= 0.05 + slack
    assert found["fail"] <= 0.05 + slack
