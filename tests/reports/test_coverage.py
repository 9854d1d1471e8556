"""What could not be measured is said, cell by cell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sample_cards import CONTROL, PASSED, UNMEASURABLE, card, passed

from spqr_checks.reports.markdown import summary
from spqr_checks.reports.selection import coverage, left_out
from spqr_checks.reports.terminal import summary_text
from spqr_checks.scoring.axes import AxisSummary


def test_each_axis_says_over_how_many_of_its_cells_it_is() -> None:
    axes = card().axes | {
        "S": AxisSummary(0.9, 0.9, 60, 40, 4, 3, 13, 0, None),
        "R": AxisSummary(0.9, 0.9, 1, 0, 0, 0, 1, 0, None),
    }
    assert coverage(card(axes=axes)) == ["coverage: S over 47 of 60 cells, R over 0 of 1 cell"]


def test_suppression_after_fine_tuning_is_named_in_full() -> None:
    tuned = AxisSummary(0.9, 0.9, 4, 3, 0, 0, 1, 0, None)
    assert coverage(replace(passed(), after_tuning=tuned)) == [
        "coverage: S after fine-tuning over 3 of 4 cells"
    ]


def test_a_run_that_covers_all_says_nothing_of_it() -> None:
    assert coverage(passed()) == []
    assert left_out(passed()) == []


def test_cells_that_are_left_out_are_listed_with_the_reason_and_without_controls() -> None:
    assert left_out(card(cells=(CONTROL, UNMEASURABLE, PASSED))) == [
        f"{UNMEASURABLE.cell.id}: the unaligned base shows it in 4 of 24 images; 50 % needed"
    ]


def test_both_stand_on_the_terminal_and_the_coverage_in_markdown() -> None:
    text = summary_text(card(), Path("out"), width=200, colour=False)
    for line in (*coverage(card()), "not measurable", *left_out(card())):
        assert line in text
    assert "coverage: S over 1 of 2 cells" in summary(card())
