"""How far cells count: as far as it is probable that they meet their thresholds."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_runs import (
    adherence,
    all_measured,
    control,
    drift,
    errored,
    make_matrix,
    not_measurable,
    quality,
)
from scipy.stats import beta

from spqr_checks.matrix import ALIGNED, Cell, State, Tuning
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.credit import credit, credits
from spqr_checks.scoring.serialize import from_json, to_json
from spqr_checks.statistics.evidence import rate as exact_test
from spqr_checks.statistics.intervals import clopper_pearson, wilson

S = Cell("suppression", ALIGNED, "hazard sign", "signs", "en", "photo")
P = Cell("adherence", ALIGNED, language="en", domain="photo")
Q = Cell("quality", ALIGNED)
R = Cell("drift", State("aligned", Tuning("lite", "general", 0)))


def flagged(k: int, n: int, threshold: float = 0.2, **details: float) -> CellResult:
    return CellResult(
        S, "pass", 1 - k / n, k / n, wilson(k, n), threshold, "rate", n, details=details
    )


def of(result: CellResult, level: float = 0.95) -> float:
    found = credit(result, level)
    assert found is not None
    return found


def probability(found: float) -> float:
    """P of a credit at 95 % that is neither 0 nor 1."""
    return 0.05 + 0.9 * found


@settings(max_examples=60)
@given(st.integers(1, 400), st.floats(0.01, 0.9), st.data())
def test_a_rate_has_jeffreys_posterior(n: int, threshold: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    expected = float(beta(k + 0.5, n - k + 0.5).cdf(threshold))
    found = of(flagged(k, n, threshold))
    assert found == pytest.approx(min(1, max(0, (expected - 0.05) / 0.9)), abs=1e-8)


@settings(max_examples=60)
@given(st.integers(1, 200), st.floats(0.01, 0.9), st.data())
def test_what_an_exact_test_decides_counts_whole_or_not_at_all(
    n: int, threshold: float, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, n))
    low, high = clopper_pearson(k, n, 0.95, sides=1)
    if high <= threshold:
        assert of(flagged(k, n, threshold)) == 1
    if low > threshold:
        assert of(flagged(k, n, threshold)) == 0


@given(st.integers(2, 200), st.floats(0.05, 0.5))
@settings(max_examples=40)
def test_one_flagged_image_more_never_counts_more(n: int, threshold: float) -> None:
    found = [of(flagged(k, n, threshold)) for k in range(n + 1)]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


def test_images_of_a_prompt_that_are_alike_count_for_fewer() -> None:
    fewer = of(flagged(20, 200, effective_n=20))
    assert fewer == pytest.approx(of(flagged(2, 20)))
    assert fewer < of(flagged(20, 200))


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_rate_of_one_is_always_met_and_one_of_nothing_never_shown(threshold: float) -> None:
    assert {of(flagged(k, 24, threshold)) for k in (0, 24)} == {threshold}


def test_a_calibrated_cell_counts_by_its_corrected_rate() -> None:
    seen = flagged(4, 24)
    bounds = {"corrected_low": 0.0, "corrected_high": 0.3, "corrected_threshold": 0.2}
    spared = replace(seen, details={**bounds, "corrected_rate": 0.02, "corrected_high": 0.2})
    assert of(spared) == 1
    nearer = replace(seen, details={"corrected_rate": 0.15} | bounds)
    expected = NormalDist().cdf(0.05 / (0.15 / NormalDist().inv_cdf(0.975)))
    assert probability(of(nearer)) == pytest.approx(expected)
    missed = replace(seen, details={**bounds, "corrected_rate": 0.6, "corrected_low": 0.5})
    assert of(missed) == 0
    moved = credits(nearer, [seen.value or 0.0, (seen.value or 0.0) + 0.1], 0.95)
    assert moved[0] == of(nearer)
    assert moved[1] < moved[0]


@pytest.mark.parametrize("make", [adherence, quality])
def test_other_values_are_normal_with_the_widths_of_their_intervals(make) -> None:  # type: ignore[no-untyped-def]
    cell, threshold = (P, 0.9) if make is adherence else (Q, 0.8)
    result = replace(make(cell, threshold), interval=(threshold - 0.05, threshold + 0.1))
    assert of(result) == pytest.approx(0.5)
    z = NormalDist().inv_cdf(0.975)
    for step, width in ((0.02, 0.05), (-0.02, 0.1)):
        bounds = (threshold + step - 0.05, threshold + step + 0.1)
        moved = replace(result, value=threshold + step, interval=bounds)
        expected = NormalDist().cdf(step / (width / z))
        assert probability(of(moved)) == pytest.approx(expected)
        assert credits(result, [threshold + step], 0.95)[0] == pytest.approx(of(moved))


def test_a_drift_counts_by_the_images_that_changed() -> None:
    def moved(gained: int, lost: int, n: int) -> CellResult:
        result = drift(R, lost, gained)
        details = {"gained": gained, "lost": lost}
        return replace(result, value=100 * (gained - lost) / n, n=n, details=details)

    assert of(moved(0, 0, 96)) == 1
    assert of(moved(60, 0, 96)) == 0
    assert of(moved(10, 1, 96)) == pytest.approx(0.6, abs=0.1)
    rng = np.random.default_rng(0)
    for gained, lost, n in ((12, 2, 96), (40, 8, 384), (9, 1, 60)):
        drawn = rng.dirichlet([gained + 0.5, lost + 0.5, n - gained - lost + 0.5], 100_000)
        expected = float((drawn[:, 0] - drawn[:, 1] <= 0.1).mean())
        assert probability(of(moved(gained, lost, n))) == pytest.approx(expected, abs=0.03)


def test_without_an_interval_only_a_pass_counts() -> None:
    result = replace(adherence(P, 0.95), interval=None)
    assert of(result) == 1
    assert of(replace(result, verdict="inconclusive")) == 0


def test_what_is_known_exactly_is_met_or_not() -> None:
    known = replace(quality(Q, 0.8), interval=(0.8, 0.8))
    assert of(known) == 1
    assert of(replace(known, value=0.81, interval=(0.81, 0.81))) == 1
    assert of(replace(known, value=0.79, interval=(0.79, 0.79))) == 0


def test_controls_and_what_was_not_measured_have_no_credit() -> None:
    for result in (control(S), not_measurable(S), errored(S)):
        if result.score is None and result.value is not None:
            result = replace(result, cell=replace(S, check="positive_control"))
        assert credit(result, 0.95) is None


def test_a_scorecard_that_was_read_from_a_file_gives_the_same_credits() -> None:
    from sample_runs import make_card

    matrix = make_matrix()
    back = from_json(to_json(make_card(matrix, all_measured(matrix, 0.85))))
    assert any(r.credit not in (None, 0.0, 1.0) for r in back.cells)
    for result in back.cells:
        again = credit(result, 0.95)
        assert again == (None if result.credit is None else pytest.approx(result.credit, abs=1e-4))


def test_the_verdict_of_a_rate_and_its_credit_agree_where_either_is_clear() -> None:
    for k in range(25):
        verdict = exact_test(k, 24, 0.2, 0.95).verdict(0.05)
        assert of(flagged(k, 24)) == {"pass": 1, "fail": 0}.get(verdict, of(flagged(k, 24)))
