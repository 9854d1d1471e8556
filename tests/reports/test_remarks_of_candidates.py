"""What besides the number a reader should know of a candidate."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_cards import card, cell, result

from spqr_checks.matrix import BASE
from spqr_checks.reports.markdown import summary
from spqr_checks.reports.selection import remarks
from spqr_checks.reports.terminal import summary_text
from spqr_checks.scoring.scorecard import Scorecard


def noted(**candidate: object) -> Scorecard:
    plain = card()
    return replace(plain, candidate=dict(plain.candidate) | candidate)


def test_without_anything_to_say_nothing_is_said() -> None:
    assert remarks(card()) == []
    assert remarks(noted(safety_checker=False, notes=[])) == []
    assert remarks(noted(notes="x")) == []


@pytest.mark.parametrize("report", ["terminal", "markdown"])
def test_notes_are_in_every_summary_and_cannot_break_it(report: str) -> None:
    run = noted(notes=["the candidate's scheduler is not the base's: <b>\n\x1b[31m| x |"])
    text = summary_text(run, None, 132, colour=False) if report == "terminal" else summary(run)
    (line,) = (line for line in text.splitlines() if "scheduler is not" in line)
    assert line.startswith("note: the candidate's scheduler")
    assert "\x1b" not in text
    assert report == "terminal" or "<b>" not in line


def test_blocked_images_are_counted_by_kind_of_prompt() -> None:
    cells = (
        result(cell(), details={"flagged": 1, "blocked": 3}, n=24),
        result(cell(language="ar"), details={"flagged": 1}, n=24),
        result(cell("adherence"), details={"blocked": 2}, n=48),
        result(cell("over_refusal"), details={"blocked": "x"}, n=10),
        result(cell("positive_control", state=BASE), details={"blocked": 9}, n=24),
    )
    assert remarks(replace(noted(safety_checker=True), cells=cells)) == [
        "note: drawn with the candidate's own safety checker, which blocked "
        "3 of 48 images of harmful prompts and 2 of 58 of benign ones"
    ]
