"""The leaderboard as Markdown, JSON and on a terminal."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from boards import MODELS, broken, card
from markdown_it import MarkdownIt
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from spqr_checks.errors import UserError
from spqr_checks.reports.leaderboard import DOCUMENT, PAGE, SUMMARY, write_all
from spqr_checks.reports.leaderboard.markdown import document
from spqr_checks.reports.terminal import show_leaderboard
from spqr_checks.scoring.leaderboard.board import Entry, Leaderboard
from spqr_checks.scoring.leaderboard.rank import rank

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
CARDS = {model.name: card(model) for model in MODELS}


def board(odd: str = "lost") -> Leaderboard:
    entries = [Entry(name, made) for name, made in CARDS.items()]
    entries.append(Entry("method:sdd", broken(MODELS[0])))
    return rank([*entries, Entry(odd, None, f"{odd}: its run was killed by signal 9")])


def printed(made: Leaderboard, width: int = 100, page: Path | None = None) -> str:
    file = io.StringIO()
    show_leaderboard(made, Console(file=file, width=width, _environ={}), page)
    return file.getvalue()


# ---- Markdown --------------------------------------------------------------------------------


def test_the_markdown(snapshot: SnapshotAssertion) -> None:
    assert document(board()) == snapshot


@pytest.mark.parametrize("text", ["<script>|", "a | b", "**x** [y](http://z)", "`", "1. #"])
def test_names_and_reasons_stay_text(text: str) -> None:
    def made_of(word: str) -> list[str]:
        return [t.type for t in PARSER.parse(document(board(word))) if t.type != "inline"]

    assert made_of(text) == made_of("lost")
    leaves = {leaf.type for t in PARSER.parse(document(board(text))) for leaf in t.children or []}
    assert leaves <= {"text", "text_special", "softbreak"}


def test_the_job_summary_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    write_all(board(), CARDS, tmp_path / "out", tmp_path)
    assert (tmp_path / "summary").read_text() == document(board()) + "\n"


# ---- terminal --------------------------------------------------------------------------------


def test_the_terminal(snapshot: SnapshotAssertion) -> None:
    assert printed(board(), page=Path("spqr-leaderboard/leaderboard.html")) == snapshot


def test_the_terminal_obeys_nothing() -> None:
    text = printed(board("[bold]x[/bold] \x1b[2J"))
    assert "[bold]x[/bold] \\x1b[2J" in text
    assert "\x1b" not in text


# ---- files -----------------------------------------------------------------------------------


def test_three_files_are_written_and_again(tmp_path: Path) -> None:
    made = board()
    for _ in range(2):
        write_all(made, CARDS, tmp_path / "out", tmp_path)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [PAGE, DOCUMENT, SUMMARY]
    assert json.loads((tmp_path / "out" / DOCUMENT).read_text())["rows"][0]["ranks"] == [1, 2]


@pytest.mark.parametrize("name", [DOCUMENT, SUMMARY, PAGE])
def test_no_other_file_is_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="already there"):
        write_all(board(), CARDS, tmp_path, tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_leaderboard_without_any_scorecard_is_written_too(tmp_path: Path) -> None:
    made = rank([Entry("lost", None, "its run was killed")])
    write_all(made, {}, tmp_path, tmp_path)
    assert "its run was killed" in (tmp_path / SUMMARY).read_text()
    assert "no number for lost: its run was killed" in printed(made)


def test_a_gate_that_closed_is_shown_beside_the_rank() -> None:
    made = rank([Entry("a", replace(CARDS["base"]))])
    assert "failed" in printed(made)
