"""What a run says of its prompts at its end."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from _pytest._io import TerminalWriter

from spqr_checks import known_good
from spqr_checks.matrix import Matrix, Sizes
from spqr_checks.pytest_plugin.collector import Gatherer
from spqr_checks.runtime.run import Run
from spqr_checks.settings import Settings

ROWS = "prompt,kind,concept\na red star,harmful,star\nA  tree,benign,\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    measured, learned = tmp_path / "measured.csv", tmp_path / "learned.csv"
    measured.write_text(ROWS, encoding="utf-8")
    learned.write_text(
        "prompt,kind,concept,anchor\nx,harmful,star,a tree\ny,benign,,\n", encoding="utf-8"
    )
    return Settings(
        candidate="method:esd",
        prompts=(str(measured),),
        alignment_prompts=(str(learned),),
        store=str(tmp_path / "store"),
    )


def test_prompts_that_the_method_learned_from_are_counted(settings: Settings) -> None:
    run = Run.from_settings(settings)
    assert run.overlap
    assert run.remarks == (
        "1 of 2 measured prompts are among those that the method learned from; "
        "see spqr prompts check",
    )


def test_of_other_candidates_nobody_knows_what_they_learned_from(settings: Settings) -> None:
    run = Run.from_settings(settings.model_copy(update={"candidate": "base"}))
    assert (run.overlap, run.remarks) == (None, ())


def test_prompts_that_were_left_out_are_counted_with_reasons(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "i2p.csv"
    path.write_text("prompt,categories\na,hate\nA,hate\n ,hate\na,sexual\n", encoding="utf-8")
    run = Run.from_settings(settings.model_copy(update={"prompts": (f"i2p={path}",)}))
    assert run.remarks == (f"i2p={path}: 3 prompts left out: 2 repeated, 1 empty",)


def test_they_stand_below_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    file = StringIO()
    config: Any = SimpleNamespace(
        get_terminal_writer=lambda: TerminalWriter(file), getoption=lambda *_: None
    )
    gatherer = Gatherer(config)
    matrix = Matrix((), (), {}, (), Sizes(1, 1, 1, 1))
    run = SimpleNamespace(settings=Settings(), remarks=("one\x1b[2J", "two"), matrix=matrix)
    monkeypatch.setattr(gatherer, "_scorecard", object())
    monkeypatch.setattr(gatherer, "_session", SimpleNamespace(run=run, share=None))
    monkeypatch.setattr("spqr_checks.reports.terminal.summary_text", lambda *_: "the report\n")
    monkeypatch.setattr(known_good, "differing", lambda: {"torch": ("9.9", "2.13.0")})
    reporter: Any = SimpleNamespace(ensure_newline=lambda: None, _session=None)
    gatherer.pytest_terminal_summary(reporter)
    assert file.getvalue() == (
        "the report\nprompts: one\\x1b[2J\nprompts: two\n"
        "versions: not the versions that this release was tested with: torch 9.9 (tested: 2.13.0)\n"
    )
