"""Releases in order: a plain folder of scorecards, and since when a cell is red."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from boards import MODELS, broken
from boards import card as made_up
from pages import HOSTILE, Tree, shape
from sample_cards import FAILED, LOSS, PASSED, UNMEASURABLE, card, passed

from spqr_checks.cli.main import main
from spqr_checks.errors import UserError
from spqr_checks.reports import plots
from spqr_checks.reports.history.folder import add, read
from spqr_checks.reports.history.page import page
from spqr_checks.reports.json_file import write_scorecard
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.history import Release, breaks, reds

HELD = replace(FAILED, verdict="pass")
GONE = replace(FAILED, verdict="not_measurable", score=None, value=None, interval=None)


def releases(*cells: CellResult) -> list[Release]:
    """A release for each state of one cell, called r1, r2, …"""
    return [Release(f"r{n}", card(cells=(one, PASSED))) for n, one in enumerate(cells, 1)]


# ---- since when ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("past", "since", "count", "last"),
    [
        ((FAILED,), "r1", 1, None),
        ((HELD, FAILED), "r2", 1, "r1"),
        ((FAILED, HELD, FAILED, FAILED), "r3", 2, "r2"),
        ((HELD, FAILED, GONE, FAILED), "r2", 2, "r1"),
        ((HELD, GONE, FAILED), "r3", 1, "r1"),
        ((HELD, replace(FAILED, verdict="inconclusive"), FAILED), "r2", 2, "r1"),
    ],
)
def test_a_cell_is_red_since_the_first_release_that_it_did_not_pass_without_a_break(
    past: tuple[CellResult, ...], since: str, count: int, last: str | None
) -> None:
    (red,) = reds(releases(*past))
    assert (red.id, red.since, red.releases, red.last_passed) == (
        FAILED.cell.id,
        since,
        count,
        last,
    )


def test_what_passes_now_or_says_nothing_now_is_not_red() -> None:
    assert reds(releases(FAILED, HELD)) == []
    assert reds(releases(FAILED, GONE)) == []
    assert reds([]) == []


def test_what_is_red_for_longest_comes_first() -> None:
    before = card(cells=(FAILED, replace(LOSS, verdict="pass"), UNMEASURABLE))
    found = reds([Release("r1", before), Release("r2", card())])
    assert [red.id for red in found][:2] == [FAILED.cell.id, LOSS.cell.id]


def test_releases_that_were_measured_otherwise_are_named() -> None:
    one, other = made_up(MODELS[0]), made_up(MODELS[1])
    changed = replace(other, settings=other.settings | {"images": 48})
    found = [Release("a", one), Release("b", other), Release("c", changed)]
    assert list(breaks(found)) == [("c", "setting images is 24 in one and 48 in the other")]


# ---- the folder ------------------------------------------------------------------------------


def test_names_are_in_order_and_digits_are_numbers(tmp_path: Path) -> None:
    for name in ("v1.9", "v1.10", "v2"):
        add(tmp_path, name, passed())
    write_scorecard(passed(), tmp_path / "v1.2" / "scorecard.json")
    (tmp_path / "history.html").write_text("a page is no release")
    assert [release.name for release in read(tmp_path)] == ["v1.2", "v1.9", "v1.10", "v2"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v1.10", "already"),
        ("v1.9", "would stand before v1.10"),
        ("v01.10", "would stand beside v1.10"),
        ("v1.010", "would stand beside v1.10"),
        ("../v2", "letters, digits"),
        ("", "letters, digits"),
        (".hidden", "letters, digits"),
    ],
)
def test_a_release_that_would_not_be_the_latest_is_refused(
    tmp_path: Path, name: str, said: str
) -> None:
    add(tmp_path, "v1.10", passed())
    with pytest.raises(UserError, match=said):
        add(tmp_path, name, passed())
    assert [path.name for path in tmp_path.iterdir()] == ["v1.10.json"]


@pytest.mark.parametrize("others", [["v1/scorecard.json"], ["v01.json"], ["v01/scorecard.json"]])
def test_no_release_takes_the_place_of_another(tmp_path: Path, others: list[str]) -> None:
    for name in ("v1.json", *others):
        write_scorecard(passed(), tmp_path / name)
    for act in (lambda: read(tmp_path), lambda: add(tmp_path, "v2", passed())):
        with pytest.raises(UserError, match="stand in one place of the order"):
            act()
    assert not (tmp_path / "v2.json").exists()


def test_a_release_never_takes_the_place_of_a_file_that_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scorecard(passed(), tmp_path / "v2.json")
    before = (tmp_path / "v2.json").read_bytes()
    monkeypatch.setattr("spqr_checks.reports.history.folder._files", lambda folder: {})
    for link in (os.link, refuse_links):
        monkeypatch.setattr("os.link", link)
        with pytest.raises(UserError, match=r"v2\.json cannot be written: File exists"):
            add(tmp_path, "v2", card())
    assert (tmp_path / "v2.json").read_bytes() == before
    assert add(tmp_path, "v3", passed()).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v2.json", "v3.json"]


def refuse_links(*_: object) -> None:
    raise OSError(1, "Operation not permitted")


def test_all_that_is_no_scorecard_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="spqr history add"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match="no release"):
        read(tmp_path)
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert all(name in str(error.value) for name in ("a.json", "b.json"))


# ---- what is shown ---------------------------------------------------------------------------


def test_a_gap_is_where_there_is_no_number() -> None:
    chart = plots.timeline("abcd", [(0.5, (0.4, 0.6)), (0.6, None), (None, None), (0.9, (0.8, 1))])
    assert len(chart.dots) == 3
    assert len(chart.lines) == 1
    (first, *_), last = chart.spans, chart.spans[-1]
    assert first[1] > first[2]
    assert last[2] == plots.timeline("a", [(1.0, None)]).dots[0][1]
    assert chart.text == "a 0.500, b 0.600, c —, d 0.900"


def test_the_latest_release_is_always_named_however_many_there_are() -> None:
    names = [f"r{n}" for n in range(100)]
    shown = [label.text for label in plots.timeline(names, [(0.5, None)] * 100).labels]
    assert "r99" in shown
    assert len(shown) <= 8


def test_the_page_shows_releases_the_latest_first_and_nothing_is_obeyed() -> None:
    found = [Release("r1", made_up(MODELS[0])), Release("r2", broken(MODELS[1]))]
    tree = Tree(page(found)).root
    rows = tree.named("table", "ranking")[0].named("tbody")[0].named("tr")
    assert [row.named("th")[0].words() for row in rows] == ["r2", "r1"]
    assert "INCOMPLETE" in rows[0].words()
    assert len(tree.named("svg", "timeline")) == 5
    assert not tree.named("script")
    shapes = []
    for text in (*HOSTILE, "plain"):
        spoiled = [replace(release, name=text) for release in found]
        shapes.append(shape(Tree(page(spoiled).encode("utf-8", "backslashreplace").decode()).root))
    assert all(one == shapes[-1] for one in shapes)


def test_runs_become_a_history_by_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, scorecard in (("2026-10", made_up(MODELS[0])), ("2026-11", made_up(MODELS[2]))):
        write_scorecard(scorecard, tmp_path / "spqr-report" / "scorecard.json")
        assert main(["history", "add", "--name", name]) == 0
    assert main(["history", "add", "--name", "2026-11"]) == 4
    assert "already" in capsys.readouterr().err
    assert main(["history", "show"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "failed R-all-all-all-lite.dots.0 since 2026-11 (1 release; last passed: 2026-10)" in said
    )
    assert (tmp_path / "releases" / "history.html").is_file()
