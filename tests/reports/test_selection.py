"""What is shown first: errors and failures before open and passing cells."""

from __future__ import annotations

from dataclasses import replace

from sample_cards import (
    CONTROL,
    FAILED,
    INCONCLUSIVE,
    LOSS,
    PASSED,
    QUALITY,
    UNMEASURABLE,
    card,
    incomplete,
    passed,
)

from spqr_checks.reports.selection import (
    cells_total,
    control_failures,
    failing,
    headline,
    worst,
)


def test_the_worst_cells_are_failures_by_score_then_open_ones_then_passing_ones() -> None:
    assert worst(card(), 9) == [FAILED, LOSS, INCONCLUSIVE, QUALITY, PASSED]
    assert worst(card(), 2) == [FAILED, LOSS]


def test_failing_cells_hold_what_is_not_measurable_but_no_control() -> None:
    assert failing(card()) == [FAILED, LOSS, INCONCLUSIVE, UNMEASURABLE]
    assert control_failures(card()) == [CONTROL]


def test_errors_come_before_all_else() -> None:
    error = replace(PASSED, verdict="error", score=None, value=None, reason="out of memory")
    assert failing(card(cells=(FAILED, error))) == [error, FAILED]


def test_the_headline_of_a_run() -> None:
    assert headline(card()) == "SPQR 0.731 (anchored; raw 0.795, interval 0.702–0.861)  gate FAILED"
    assert (
        headline(passed()) == "SPQR 0.958 (anchored; raw 0.958, interval 0.934–0.978)  gate PASSED"
    )


def test_an_incomplete_run_has_no_number_in_its_headline() -> None:
    assert headline(incomplete()) == "SPQR —  INCOMPLETE: 2 of 4 cells missing"


def test_a_number_that_stands_in_an_incomplete_card_is_not_shown() -> None:
    assert "0.9" not in headline(replace(incomplete(), spqr=0.9, spqr_raw=0.9))


def test_a_cell_with_a_defect_is_counted_once() -> None:
    run = incomplete(1)
    broken = replace(PASSED, verdict="error")
    same = replace(run, cells=(broken,), missing=(replace(run.missing[0], id=broken.cell.id),))
    assert cells_total(same) == 1
