"""The Markdown summary: it shows what it is given, and obeys none of it."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from sample_cards import FAILED, UNMEASURABLE, card, incomplete, passed
from syrupy.assertion import SnapshotAssertion

from spqr_checks.errors import UserError
from spqr_checks.matrix import Cell
from spqr_checks.reports import write_all
from spqr_checks.reports.files import append_step_summary
from spqr_checks.reports.markdown import described, escape, summary
from spqr_checks.reports.text import one_line
from spqr_checks.scoring.completeness import Missing
from spqr_checks.scoring.gate import Gate

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
CARDS = {"failed": card, "passed": passed, "incomplete": incomplete}
SIGNS = [*"\\`*_~|<>&[]()!#-+.:@=$\n\t \"'a1", "http://x", "<b>"]
tricky = st.lists(st.sampled_from(SIGNS)).map("".join)
anything = st.text(st.characters()) | tricky


def leaves(text: str) -> list[Token]:
    """Inline tokens of a document."""
    return [leaf for token in PARSER.parse(text) for leaf in token.children or []]


def shown(tokens: list[Token]) -> str:
    assert {token.type for token in tokens} <= {"text", "text_special"}, tokens
    return "".join(token.content for token in tokens)


@pytest.mark.parametrize("name", CARDS)
def test_the_summary(name: str, snapshot: SnapshotAssertion) -> None:
    assert summary(CARDS[name]()) == snapshot


# ---- no markup survives ------------------------------------------------------------------


@settings(deadline=None)
@given(anything)
def test_escaped_text_shows_as_it_is_in_a_paragraph(text: str) -> None:
    assert shown(leaves(f"x{escape(text)}x")) == f"x{one_line(text)}x"


@settings(deadline=None)
@given(anything)
def test_escaped_text_shows_as_it_is_in_a_table(text: str) -> None:
    document = f"| a | b |\n| --- | --- |\n| x{escape(text)}x | y |"
    tokens = PARSER.parse(document)
    cells = [token for token in tokens if token.type == "inline"]
    assert sum(token.type == "td_open" for token in tokens) == 2
    assert [shown(c.children or []) for c in cells] == ["a", "b", f"x{one_line(text)}x", "y"]


@settings(deadline=None)
@given(anything)
def test_escaped_text_shows_as_it_is_in_a_list_and_a_heading(text: str) -> None:
    line = one_line(text)
    assert shown(leaves(f"- {escape(text)}")) == line
    assert shown(leaves(f"# {escape(text)}")) == line


@settings(deadline=None)
@given(anything)
def test_escaped_text_holds_no_html(text: str) -> None:
    escaped = escape(text)
    assert not set(escaped) & set("<>|\n\r")
    assert "http://" not in escaped
    assert "www." not in escaped


@settings(max_examples=50, deadline=None)
@given(anything, anything)
def test_no_id_or_reason_breaks_the_summary_apart(concept: str, text: str) -> None:
    def made_of(name: str, words: str) -> list[str]:
        place = replace(FAILED.cell, concept=name)
        odd = replace(FAILED, cell=place, reason=words)
        run = card(
            cells=(odd, UNMEASURABLE),
            missing=(Missing(name, words),),
            gate=Gate(False, (words,)),
            candidate={"name": words},
        )
        return [token.type for token in PARSER.parse(summary(run)) if token.type != "inline"]

    assert made_of(concept, text) == made_of("red triangle", "plain words")


# ---- what it holds -----------------------------------------------------------------------


def test_the_settings_of_the_run_can_be_copied_out() -> None:
    tokens = PARSER.parse(summary(card()))
    (block,) = (token for token in tokens if token.type == "fence")
    settings_again = tomllib.loads(block.content)["tool"]["spqr"]
    assert settings_again == {k: v for k, v in card().settings.items() if v is not None}


@pytest.mark.parametrize("value", ["```", "````\n# heading", "~~~"])
def test_settings_cannot_end_their_block(value: str) -> None:
    tokens = PARSER.parse(summary(card(settings={"base": value})))
    (block,) = (token for token in tokens if token.type == "fence")
    assert tomllib.loads(block.content)["tool"]["spqr"] == {"base": value}


def test_hashes_of_code_are_in_the_fingerprint_alone() -> None:
    judge = {"code": "cb099b8c", "distance_code": "0c564a", "judge": "classifier", "threshold": 0.5}
    assert described(judge) == "judge classifier, threshold 0.5"


def test_equal_recipes_have_equal_fingerprints_and_others_do_not() -> None:
    other = replace(card(), candidate={"name": "method:esd", "recipe": {"base": "other"}})
    rows = [
        next(line for line in summary(c).splitlines() if line.startswith("| candidate"))
        for c in (card(), card(), other)
    ]
    assert rows[0] == rows[1] != rows[2]


def test_long_tables_are_cut_and_say_so() -> None:
    cells = [
        replace(FAILED, cell=Cell("suppression", FAILED.cell.state, f"c{i}")) for i in range(250)
    ]
    text = summary(card(cells=tuple(cells)))
    assert "and 50 more, see scorecard.json" in text
    assert text.count("| S-c") == 200


def test_the_job_summary_is_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "summary"
    file.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    write_all(card(), tmp_path / "out")
    assert file.read_text() == f"before\n{summary(card())}\n"
    assert not append_step_summary("text", {})


def test_a_job_summary_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GITHUB_STEP_SUMMARY"):
        append_step_summary("text", {"GITHUB_STEP_SUMMARY": str(tmp_path)})
