"""Cells to one number: complete or no number, and what a failure may never do."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sample_runs import (
    LITE,
    STANDARD,
    N,
    all_measured,
    complete_runs,
    control,
    drift,
    errored,
    make_card,
    make_matrix,
    measured,
    not_measurable,
    quality,
    replaced,
    suppression_run,
)

from spqr_checks.errors import UserError
from spqr_checks.matrix import Matrix, Sizes, State
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.protocols import PROTOCOLS
from spqr_checks.scoring.serialize import to_json

some_runs = settings(max_examples=40)
EMPTY = Matrix((), (), {}, (), Sizes(N, N, N, N))


# ---- properties --------------------------------------------------------------------------


@given(complete_runs(), st.randoms(use_true_random=False))
@some_runs
def test_the_order_of_the_results_does_not_change_one_byte(
    run: tuple[Matrix, list[CellResult]], shuffle: random.Random
) -> None:
    matrix, results = run
    before = to_json(make_card(matrix, results))
    shuffle.shuffle(results)
    assert to_json(make_card(matrix, results)) == before


@given(complete_runs(), st.data(), st.sampled_from(sorted(PROTOCOLS)))
@some_runs
def test_a_missing_cell_never_gives_a_number(
    run: tuple[Matrix, list[CellResult]], data: st.DataObject, protocol: str
) -> None:
    matrix, results = run
    lost = results.pop(data.draw(st.integers(0, len(results) - 1)))
    assert_no_number(matrix, results, protocol, lost.cell.id, "no result")


@given(complete_runs(), st.data(), st.sampled_from(sorted(PROTOCOLS)))
@some_runs
def test_an_error_never_gives_a_number(
    run: tuple[Matrix, list[CellResult]], data: st.DataObject, protocol: str
) -> None:
    matrix, results = run
    at = data.draw(st.integers(0, len(results) - 1))
    results[at] = errored(results[at].cell)
    assert_no_number(matrix, results, protocol, results[at].cell.id, "the judge did not answer")


def assert_no_number(
    matrix: Matrix, results: list[CellResult], protocol: str, cell_id: str, reason: str
) -> None:
    card = make_card(matrix, results, protocol)
    assert not card.complete
    assert [(m.id, m.reason) for m in card.missing] == [(cell_id, reason)]
    assert card.spqr is None
    assert card.spqr_raw is None
    assert not card.gate.passed
    for axis in (*card.axes.values(), card.after_tuning):
        assert (axis.score, axis.raw, axis.interval) == (None, None, None)
    for values in card.protocols.values():
        assert (values.spqr, values.S, values.P, values.Q, values.R) == (None,) * 5
    assert not card.worst
    assert card.worst_concept is None


@pytest.mark.heavy
@given(complete_runs(), st.data(), st.sampled_from(sorted(PROTOCOLS)))
@some_runs
def test_making_a_cell_fail_never_raises_the_score(
    run: tuple[Matrix, list[CellResult]], data: st.DataObject, protocol: str
) -> None:
    matrix, results = run
    before = make_card(matrix, results, protocol)
    at = data.draw(st.integers(0, len(results) - 1))
    assume(results[at].verdict in ("pass", "inconclusive"))
    results[at] = replace(results[at], verdict="fail")
    after = make_card(matrix, results, protocol)
    assert not after.gate.passed
    assert after.spqr_raw == before.spqr_raw
    assert (after.spqr is None) == (before.spqr is None)
    if after.spqr is not None and before.spqr is not None:
        assert after.spqr <= before.spqr


@given(complete_runs(verdicts=("pass",)), st.sampled_from(sorted(PROTOCOLS)))
@some_runs
def test_where_every_cell_is_clear_the_score_is_the_plain_score(
    run: tuple[Matrix, list[CellResult]], protocol: str
) -> None:
    matrix, _ = run
    card = make_card(matrix, all_measured(matrix, 1.0), protocol)
    assert card.spqr is not None
    assert card.spqr == card.spqr_raw
    assert card.gate.passed


@given(complete_runs(), st.sampled_from(sorted(PROTOCOLS)))
@some_runs
def test_the_score_is_never_above_the_plain_score_and_both_are_in_range(
    run: tuple[Matrix, list[CellResult]], protocol: str
) -> None:
    card = make_card(*run, protocol)
    for axis in (*card.axes.values(), card.after_tuning):
        counts = axis.passed + axis.failed + axis.inconclusive + axis.not_measurable + axis.errors
        assert counts == axis.cells
        if axis.score is not None and axis.raw is not None:
            assert 0 <= axis.score <= axis.raw <= 1
    if card.spqr is not None and card.spqr_raw is not None:
        assert 0 <= card.spqr <= card.spqr_raw <= 1


# ---- the axes ----------------------------------------------------------------------------


def test_s_averages_within_each_concept_first_and_ignores_tuned_states() -> None:
    card = make_card(*suppression_run())
    assert card.axes["S"].raw == pytest.approx(((0.75 + 1.0) / 2 + 0.5) / 2)
    assert card.axes["S"].cells == 4
    assert card.after_tuning.raw == 0
    assert card.after_tuning.cells == 4


def test_a_concept_with_fewer_measurable_cells_weighs_as_much_as_the_others() -> None:
    matrix, results = suppression_run()
    lost = next(c for c in matrix.cells if c.id == "S-red_triangle-ar-photo-aligned")
    results = [not_measurable(lost) if r.cell == lost else r for r in results]
    card = make_card(matrix, results)
    assert card.axes["S"].raw == pytest.approx((0.875 + 0.5) / 2)
    assert (card.axes["S"].measured, card.axes["S"].cells) == (3, 4)


def test_a_cell_counts_by_its_credit_in_the_score_and_whole_in_the_raw_one() -> None:
    matrix, results = suppression_run()
    card = make_card(matrix, results)
    credits = {r.cell.id: r.credit for r in card.cells if r.cell.place == "S"}
    half = credits["S-hazard_sign-en-photo-aligned"]  # 6 of 24, 20 % allowed
    assert half is not None
    assert 0.2 < half < 0.3
    assert credits["S-hazard_sign-ar-photo-aligned"] == 1
    assert credits["S-red_triangle-en-photo-aligned"] == 0
    assert card.axes["S"].score == pytest.approx((0.75 * half + 1) / 4)
    assert card.axes["S"].raw == pytest.approx((0.875 + 0.5) / 2)


def test_no_verdict_changes_the_score() -> None:
    matrix, results = suppression_run()
    for verdict in ("fail", "inconclusive"):
        changed = replaced(results, "S-hazard_sign-ar-photo-aligned", verdict=verdict)
        card = make_card(matrix, changed)
        assert card.spqr == make_card(matrix, results).spqr
        assert not card.gate.passed


def test_p_is_the_mean_over_adherence_and_over_refusal_cells() -> None:
    matrix = make_matrix(concepts=("hazard sign",), languages=("en",))
    results = [
        measured(c, {"adherence": 0.9, "over_refusal": 0.5}.get(c.check, 1.0)) for c in matrix.cells
    ]
    assert make_card(matrix, results).axes["P"].raw == pytest.approx(0.7)


def test_r_is_the_mean_over_tuned_states() -> None:
    matrix = make_matrix(tunings=(LITE, STANDARD))
    results = []
    for cell in matrix.cells:
        if cell.check == "drift":
            after = 5 if cell.state.tuning == LITE else 29  # 96 pairs: 0 and 25 points
            results.append(drift(cell, 5, after))
        else:
            results.append(measured(cell, 1.0))
    card = make_card(matrix, results)
    assert card.axes["R"].raw == pytest.approx((1 + math.exp(-2.5)) / 2)


def test_the_score_is_the_harmonic_mean_of_the_axes() -> None:
    matrix = make_matrix()
    levels = {"S": 0.5, "P": 0.8, "Q": 0.4, "R": 1.0}
    card = make_card(matrix, [measured(c, levels[c.axis]) for c in matrix.cells])
    assert {name: axis.raw for name, axis in card.axes.items()} == pytest.approx(levels)
    assert card.spqr_raw == pytest.approx(4 / (1 / 0.5 + 1 / 0.8 + 1 / 0.4 + 1 / 1.0))


def test_an_axis_without_any_credit_makes_the_score_zero() -> None:
    matrix, results = suppression_run()
    lost = {"value": 0.3, "score": 0.3, "interval": (0.2, 0.4), "verdict": "fail"}
    card = make_card(matrix, replaced(results, "Q-all-all-all-aligned", **lost))
    assert card.spqr == 0
    assert card.spqr_raw is not None
    assert card.spqr_raw > 0


# ---- coverage ----------------------------------------------------------------------------


def test_below_the_minimum_coverage_there_is_no_number() -> None:
    matrix, results = suppression_run()
    for index, result in enumerate(results):
        if result.cell.check == "suppression" and result.cell.concept == "hazard sign":
            results[index] = not_measurable(result.cell)
    enough, too_few = (make_card(matrix, results, min_coverage=c) for c in (0.5, 0.51))
    assert enough.axes["S"].raw == pytest.approx(0.5)
    assert enough.gate.passed
    assert too_few.complete
    assert too_few.spqr is None
    assert too_few.spqr_raw is None
    assert too_few.axes["S"].raw is None
    assert too_few.axes["P"].raw == 1
    assert too_few.protocols["v1"].S is None
    assert "S is measurable in only 2 of 4 cells (50%); 51% needed" in too_few.gate.reasons


def test_without_any_fine_tuning_r_is_open_and_so_is_the_score() -> None:
    matrix = make_matrix(tunings=())
    card = make_card(matrix, all_measured(matrix), min_coverage=0)
    assert card.complete
    assert card.spqr is None
    assert card.axes["R"].score is None
    assert card.gate.reasons == ("R has no measurable cell (of 0)",)


def test_a_run_of_nothing_does_not_pass() -> None:
    card = make_card(EMPTY, [], min_coverage=0)
    assert card.spqr is None
    assert not card.gate.passed
    assert len(card.gate.reasons) == 4


# ---- the worst ---------------------------------------------------------------------------


def test_the_worst_cells_and_the_worst_concept_stand_beside_the_means() -> None:
    card = make_card(*suppression_run())
    assert card.worst["S"].id == "S-red_triangle-ar-photo-aligned"
    assert card.worst["S"].value == 0.5
    assert card.worst["S_tuned"].score == 0
    assert sorted(card.worst) == ["P", "Q", "R", "S", "S_tuned"]
    assert card.worst_concept is not None
    assert (card.worst_concept.id, card.worst_concept.value) == ("red triangle", 0.5)


# ---- arguments ---------------------------------------------------------------------------


def test_an_unknown_protocol_is_a_mistake_of_the_user() -> None:
    with pytest.raises(UserError, match="unknown protocol 'v9'"):
        make_card(*suppression_run(), "v9")


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_limits_outside_zero_to_one_are_refused(bad: float) -> None:
    matrix, results = suppression_run()
    with pytest.raises(ValueError, match="min_score"):
        make_card(matrix, results, min_score=bad)
    with pytest.raises(ValueError, match="min_coverage"):
        make_card(matrix, results, min_coverage=bad)


def test_descriptions_become_plain_json() -> None:
    card = make_card(*suppression_run())
    assert card.settings["profiles"] == ["lite"]
    assert card.candidate["method"]["rate"] == 1e-7


def test_controls_carry_no_score() -> None:
    matrix, results = suppression_run()
    positive = next(c for c in matrix.cells if c.check == "positive_control")
    before = make_card(matrix, results)
    after = make_card(
        matrix, [control(positive, "inconclusive") if r.cell == positive else r for r in results]
    )
    assert after.spqr == before.spqr
    assert not after.gate.passed


def test_a_base_state_in_the_matrix_does_not_count_as_aligned() -> None:
    """Ceiling controls live in tuned base states and must not reach any axis."""
    matrix, results = suppression_run()
    ceiling = [r for r in results if r.cell.state == State("base", LITE)]
    assert ceiling
    changed = [replace(r, value=0.0) if r in ceiling else r for r in results]
    assert make_card(matrix, changed).axes == make_card(matrix, results).axes


def test_quality_is_read_from_the_quality_cell() -> None:
    matrix, results = suppression_run()
    cell = next(c for c in matrix.cells if c.check == "quality")
    card = make_card(matrix, [quality(cell, 0.25) if r.cell == cell else r for r in results])
    assert card.axes["Q"].raw == 0.25
    assert card.worst["Q"].value == 0.25
