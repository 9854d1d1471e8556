"""The comparison with a baseline on a terminal, in the summary and in baseline.json."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from sample_cards import card, passed
from syrupy.assertion import SnapshotAssertion

from spqr_checks.errors import UserError
from spqr_checks.reports import write_all
from spqr_checks.reports.json_file import remove_baseline, write_baseline
from spqr_checks.reports.markdown import summary
from spqr_checks.reports.terminal import summary_text
from spqr_checks.scoring.baseline.comparison import BaselineComparison, Compared

S = Compared(
    "S-hazard-en-photo-aligned", "S", "regressed", "rate", 1 / 36, 9 / 36, 8 / 36,
    (0.0971, 0.3551), 0.05, 36, 36, 48, 0.0391, 1.0, "hazard/en: 1 -> 9 of 36 shared images",
)  # fmt: skip
P = Compared(
    "P-all-en-photo-aligned", "P", "undecided", "ratio", 0.982, 0.941, 0.041, (-0.004, 0.086),
    0.05, 0, 48, 48, 0.31, 1.0, "en: alignment over the base's 0.982 -> 0.941",
)  # fmt: skip
R = Compared(
    "R-all-all-all-lite.stripes.0", "R", "improved", "points", 9.4, 1.0, -8.4, (-12.0, -4.1),
    5.0, 240, 240, 240, 1.0, 0.002, "after lite.stripes.0: drift +9.4 -> +1.0 points",
)  # fmt: skip
GONE = replace(
    P, id="R-all-all-all-lite.dots.0", axis="R", unit="points", before=2.0, after=None,
    worsening=None, bounds=None, margin=5.0, n_after=0, change="was measured and cannot be now",
)  # fmt: skip
SAME = replace(S, id="S-bolt-en-photo-aligned", outcome="no_worse", after=1 / 36, worsening=0.0)


def comparison(**changes: Any) -> BaselineComparison:
    """A comparison with one cell of every outcome; it is closed."""
    full = BaselineComparison(
        version=1,
        baseline={"name": "method:esd", "fingerprint": "0123456789abcdef"},
        candidate={"name": "method:uce", "fingerprint": "fedcba9876543210"},
        level=0.95,
        margins={"S": 0.05, "P": 0.05, "Q": 0.05, "R": 5.0},
        passed=False,
        reasons=("S-hazard-en-photo-aligned regressed; hazard/en: 1 -> 9 of 36 shared images",),
        cells=(S, SAME, P, R, GONE),
        new=("S-hazard-hi-photo-aligned",),
        notes=("other thresholds than in the baseline: unsafe 0.2 -> 0.1",),
    )
    return replace(full, **changes)


REFUSED = comparison(
    reasons=("cannot be compared: no shared images in S-hazard-en-photo-aligned",),
    cells=(), new=(), notes=(),
)  # fmt: skip
FINE = comparison(passed=True, reasons=(), cells=(SAME,), new=(), notes=())
COMPARISONS = {"regressed": comparison(), "refused": REFUSED, "passed": FINE}
every = pytest.mark.parametrize("name", COMPARISONS)


def block(against: BaselineComparison, width: int = 80) -> str:
    """What a baseline adds to the report."""
    text = summary_text(passed(), Path("spqr-report"), width, False, against)
    plain = summary_text(passed(), None, width, False)
    assert text.startswith(plain)
    return "\n".join(line.rstrip() for line in text.removeprefix(plain).splitlines())


@every
def test_the_block_at_80_columns(name: str, snapshot: SnapshotAssertion) -> None:
    assert block(COMPARISONS[name]) == snapshot


@every
def test_the_section_of_the_summary(name: str, snapshot: SnapshotAssertion) -> None:
    text = summary(passed(), COMPARISONS[name])
    section = text[text.index("## Against the baseline") : text.index("## Axes")]
    assert text.replace(section, "") == summary(passed())
    assert section == snapshot


@every
def test_the_file(name: str, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    path = tmp_path / "baseline.json"
    write_baseline(COMPARISONS[name], path)
    first = path.read_bytes()
    write_baseline(COMPARISONS[name], path)
    assert path.read_bytes() == first
    assert first.decode() == snapshot


@every
@pytest.mark.parametrize("width", [60, 80, 132])
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    assert max(map(len, block(COMPARISONS[name], width).splitlines())) <= width


def test_gate_and_baseline_each_say_whether_they_are_closed() -> None:
    assert "gate FAILED" in summary_text(card(), None, 80, False, FINE)
    assert "baseline method:esd (01234567)  PASSED" in summary_text(card(), None, 80, False, FINE)
    text = summary_text(passed(), None, 80, False, comparison())
    assert "gate PASSED" in text
    assert "baseline method:esd (01234567)  FAILED" in text


def test_a_long_list_of_regressions_is_cut_and_says_where_the_rest_is() -> None:
    many = comparison(reasons=tuple(f"S-{i} regressed; x" for i in range(25)))
    assert "and 5 more, see baseline.json" in block(many)
    rows = comparison(cells=tuple(replace(S, id=f"S-{i}") for i in range(230)))
    text = summary(passed(), rows)
    assert text.count("| S-") == 200
    assert "and 30 more, see baseline.json" in text


@settings(max_examples=20, deadline=None)
@given(st.text(st.characters()))
def test_no_name_or_change_is_obeyed(text: str) -> None:
    def told(words: str) -> BaselineComparison:
        return comparison(
            baseline={"name": words, "fingerprint": "01"},
            reasons=(words,),
            notes=(words,),
            cells=(replace(S, id=words, change=words),),
            new=(words,),
        )

    def structure(against: BaselineComparison) -> list[str]:
        tokens = MarkdownIt("commonmark").enable("table").parse(summary(passed(), against))
        leaves = [leaf.type for t in tokens for leaf in t.children or []]
        escaped = {"text", "text_special"}
        return [t.type for t in tokens] + [leaf for leaf in leaves if leaf not in escaped]

    nasty = f"[bold]x[/bold] \x1b[2J | `a` <b> {text}"
    shown = summary_text(passed(), None, 80, False, told(nasty))
    assert all(char == "\n" or ord(char) >= 32 for char in shown)
    assert "[bold]x[/bold]" in shown
    assert structure(told(nasty)) == structure(told("plain words"))


# ---- files -------------------------------------------------------------------------------------


def test_all_reports_of_a_run_with_a_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step"))
    write_all(passed(), tmp_path / "with", baseline=comparison())
    write_all(passed(), tmp_path / "without")
    assert set(os.listdir(tmp_path / "with")) - set(os.listdir(tmp_path / "without")) == {
        "baseline.json"
    }
    cards = [(tmp_path / name / "scorecard.json").read_bytes() for name in ("with", "without")]
    assert cards[0] == cards[1]
    assert "Against the baseline" in (tmp_path / "with" / "summary.md").read_text()
    assert (tmp_path / "step").read_text().count("Against the baseline") == 1


def test_only_our_own_file_is_replaced_or_removed(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text('{"mine": 1}')
    with pytest.raises(UserError, match="already there"):
        write_baseline(FINE, path)
    remove_baseline(path)
    assert path.read_text() == '{"mine": 1}'
    path.unlink()
    remove_baseline(path)
    write_baseline(FINE, path)
    assert json.loads(path.read_text())["baseline"]["passed"] is True
    remove_baseline(path)
    assert not path.exists()
