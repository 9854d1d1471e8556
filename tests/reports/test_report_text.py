"""Words and figures: one visible line, whatever comes in."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_cards import CONTROL, FAILED, INCONCLUSIVE, LOSS, PASSED, UNMEASURABLE

from spqr_checks.reports.text import (
    encodable,
    figure,
    limit,
    lines,
    message,
    one_line,
    reason,
    score,
    shorten,
    span,
)
from spqr_checks.scoring.cell_result import CellResult

anything = st.text(st.characters())


@settings(deadline=None)
@given(anything)
def test_nothing_is_left_that_a_terminal_or_browser_would_obey(text: str) -> None:
    line = one_line(text)
    forbidden = {"Cc", "Cs", "Zl", "Zp", "Cn", "Co"}
    assert not any(unicodedata.category(char) in forbidden for char in line)
    assert not set(line) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    line.encode("utf-8")


@settings(deadline=None)
@given(anything)
def test_lines_keep_their_breaks_and_nothing_else_that_a_terminal_would_obey(text: str) -> None:
    said = lines(text).split("\n")
    assert len(said) == max(1, len(text.splitlines()))
    assert all(one_line(line) == " ".join(line.split()) for line in said)
    assert lines("a:\n  - b  c\x1b[1m") == "a:\n  - b  c\\x1b[1m"


@settings(deadline=None)
@given(anything)
def test_one_line_is_settled_at_once(text: str) -> None:
    assert one_line(one_line(text)) == one_line(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n\t b\u2028c ", "a b c"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("safe\u202eelbasnu", "safe\\u202eelbasnu"),
        ("half \ud800", "half \\ud800"),
        ("مثلث أحمر", "مثلث أحمر"),
        ("क्\u200dष", "क्\u200dष"),
        ("", ""),
    ],
)
def test_examples_of_lines(text: str, line: str) -> None:
    assert one_line(text) == line


@settings(deadline=None)
@given(anything, st.integers(1, 40))
def test_shortened_text_fits(text: str, width: int) -> None:
    short = shorten(text, width)
    assert len(short) <= width
    assert short == one_line(text) or short.endswith("…")


@settings(deadline=None)
@given(anything, st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8", "cp437"]))
def test_text_can_be_printed_on_every_stream(text: str, encoding: str) -> None:
    encodable(text, encoding).encode(encoding)


def test_dashes_have_a_plain_spelling() -> None:
    assert encodable("SPQR — 0.1–0.2 · ≤ 3", "ascii") == "SPQR - 0.1-0.2 - <= 3"


def test_figures_carry_their_unit() -> None:
    assert figure(0.0174, "rate") == "1.7 %"
    assert figure(3.14, "points") == "+3.1 pp"
    assert figure(0.98249, "ratio") == "0.982"
    assert figure(None, "rate") == score(None) == span(None) == "—"
    assert span((0.002, 0.041), "rate") == "0.2–4.1 %"
    assert span((-1.24, 3.1), "points") == "-1.2 to +3.1 pp"
    assert span((0.912, 0.954)) == "0.912–0.954"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (FAILED, "≤ 30.0 %"),
        (INCONCLUSIVE, "≤ +10.0 pp"),
        (LOSS, "≥ 0.900"),
        (CONTROL, "≥ 50.0 %"),
    ],
)
def test_a_limit_says_on_which_side_of_it_a_cell_passes(result: CellResult, text: str) -> None:
    assert limit(result) == text


@pytest.mark.parametrize(
    ("result", "start"),
    [
        (FAILED, "safety regression: 15 of 24"),
        (LOSS, "utility loss: prompt alignment"),
        (INCONCLUSIVE, "inconclusive: unsafe images"),
        (UNMEASURABLE, "not measurable: the unaligned"),
        (replace(CONTROL, verdict="fail"), "control failed: the unaligned"),
        (replace(FAILED, verdict="error", reason=""), "error: no reason given"),
    ],
)
def test_a_message_begins_with_what_kind_it_is(result: CellResult, start: str) -> None:
    assert message(result).startswith(start)


def test_a_reason_does_not_repeat_the_verdict() -> None:
    assert reason(INCONCLUSIVE).startswith("unsafe images rose")
    assert reason(PASSED) == ""
