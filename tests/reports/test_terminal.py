"""The report on a terminal: 80 columns, with and without colour, in logs."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sample_cards import FAILED, card, incomplete, passed
from syrupy.assertion import SnapshotAssertion

from spqr_checks.reports.terminal import show, summary_text
from spqr_checks.scoring.axes import AxisSummary
from spqr_checks.scoring.completeness import Missing
from spqr_checks.scoring.gate import Gate
from spqr_checks.scoring.scorecard import Scorecard

REPORT = Path("spqr-report")
CARDS = {"failed": card, "passed": passed, "incomplete": incomplete}


def plain(run: Scorecard, width: int = 80) -> str:
    text = summary_text(run, REPORT, width, colour=False)
    return "\n".join(line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("name", CARDS)
def test_the_report_at_80_columns(name: str, snapshot: SnapshotAssertion) -> None:
    assert plain(CARDS[name]()) == snapshot


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("width", [60, 80, 132])
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    assert max(map(len, plain(CARDS[name](), width).splitlines())) <= width


def test_large_counts_still_fit_80_columns() -> None:
    big = AxisSummary(0.123, 0.456, 99_999, 10_000, 10_000, 10_000, 10_000, 10_000, (0.1, 0.9))
    text = plain(card(axes=dict.fromkeys("SPQR", big), after_tuning=big))
    row = next(line for line in text.splitlines() if line.startswith("S after fine-tuning"))
    assert row.split()[3:] == ["0.123", "0.456", "0.100–0.900", *["10000"] * 5]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("failed", "SPQR 0.731 (anchored-2, interval 0.702–0.861; raw 0.795)  gate FAILED"),
        ("passed", "SPQR 0.958 (anchored-2, interval 0.934–0.978; raw 0.958)  gate PASSED"),
        ("incomplete", "SPQR —  INCOMPLETE: 2 of 4 cells missing"),
    ],
)
def test_the_number_stands_on_a_line_of_its_own(name: str, line: str) -> None:
    assert line in plain(CARDS[name]()).splitlines()


def test_an_incomplete_run_lists_what_is_missing() -> None:
    text = " ".join(plain(incomplete(25)).split())
    assert "- 25 cells: the judge did not answer (S-red_triangle-en-plain-lite.stripes.1, " in text
    run = incomplete(25)
    missing = tuple(replace(one, reason=f"reason {n}") for n, one in enumerate(run.missing))
    text = plain(replace(run, missing=missing))
    assert "- S-red_triangle-en-plain-lite.stripes.1: reason 0" in text
    assert "and 5 more, see scorecard.json" in text


def test_colour_changes_nothing_but_the_colour() -> None:
    coloured = summary_text(card(), REPORT, 80, colour=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == summary_text(card(), REPORT, 80, colour=False)


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_color_and_dumb_terminals_get_no_colour(environ: dict[str, str]) -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, _environ=environ)
    show(card(), console, REPORT)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", file.getvalue())
    assert "gate FAILED" in file.getvalue()


def test_a_log_gets_no_escapes_at_all() -> None:
    file = io.StringIO()
    show(card(), Console(file=file, width=80, _environ={}), REPORT)
    assert "\x1b" not in file.getvalue()


def test_a_stream_that_knows_only_ascii_is_no_reason_to_fail() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    odd = replace(FAILED, reason="مثلث")
    show(card(cells=(odd,)), Console(file=file, width=80, _environ={}), REPORT)
    file.flush()
    assert b"\\u0645" in raw.getvalue()
    assert b"SPQR 0.731" in raw.getvalue()


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters()), st.text(st.characters()))
def test_no_text_from_outside_is_obeyed(reason: str, missing: str) -> None:
    nasty = f"[bold]x[/bold] [/] \x1b[2J\x1b]0;title\x07 {reason}"
    run = card(
        complete=False,
        missing=(Missing(nasty, missing),),
        gate=Gate(False, (nasty,)),
        cells=(replace(FAILED, reason=nasty),),
    )
    text = summary_text(run, REPORT, 80, colour=False)
    assert all(char == "\n" or ord(char) >= 32 for char in text)
    assert "[bold]x[/bold]" in text
