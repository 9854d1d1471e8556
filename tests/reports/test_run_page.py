"""The page of one run: self-contained, obeying nothing it is given, whole without its script."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from boards import MODELS, broken
from boards import card as made_up
from pages import HOSTILE, Node, Tree, shape, spoiled
from PIL import Image
from sample_cards import (
    ALL,
    FAILED,
    LOSS,
    PASSED,
    card,
    cell,
    draw_images,
    incomplete,
    passed,
    result,
)
from syrupy.assertion import SnapshotAssertion

from spqr_checks.errors import UserError
from spqr_checks.matrix import BASE
from spqr_checks.reports import PAGE, obstacles, write_all
from spqr_checks.reports.album import Album
from spqr_checks.reports.run_page.page import Around, page
from spqr_checks.reports.selection import worst
from spqr_checks.reports.text import one_line
from spqr_checks.scoring.baseline.comparison import compare
from spqr_checks.scoring.cell_result import CellResult, ImageRef
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.settings import Settings

NOTHING = Around()


def tree_of(scorecard: Scorecard, album: Album | None = None, around: Around = NOTHING) -> Node:
    text = page(scorecard, album, around)
    return Tree(text.encode("utf-8", "backslashreplace").decode()).root


def titles(tree: Node) -> list[str]:
    return [h.words() for section in tree.named("section") for h in section.named("h2")]


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scorecard, Path]:
    """A candidate that loses its safety to fine-tuning, and its store."""
    store = tmp_path_factory.mktemp("store")
    return made_up(MODELS[2], store), store


# ---- what it shows ---------------------------------------------------------------------------


def test_the_page_of_a_small_run(snapshot: SnapshotAssertion) -> None:
    text = page(card(), None, NOTHING)
    assert text[text.index("<main>") : text.index("<script>")] == snapshot


def test_number_interval_and_gate_come_first() -> None:
    header = tree_of(card()).named("header")[0]
    line = " ".join(header.named("div", "verdict-line")[0].words().split())
    assert line == "SPQR0.731 Gate FAILED 95 % interval 0.702–0.861 anchored-2, raw 0.795"
    assert "2 cells failed" in header.words()
    assert tree_of(passed()).named("span", "badge")[0].words() == "Gate PASSED"


def test_an_axis_of_one_cell_is_no_second_advice(drifting: tuple[Scorecard, Path]) -> None:
    """Its only cell without fault is the axis without fault."""
    scorecard, _ = drifting
    (only, *others) = (r for r in scorecard.cells if r.cell.place == "R")
    assert others

    def said(card: Scorecard) -> list[str]:
        header = tree_of(card).named("header")[0]
        return [li.words() for li in header.named("ul", "advice")[0].named("li")]

    assert any("R robustness without fault" in line for line in said(scorecard))
    cells = tuple(r for r in scorecard.cells if r not in others)
    alone = said(replace(scorecard, cells=cells))
    assert [line for line in alone if only.cell.id in line]
    assert not [line for line in alone if "R robustness without fault" in line]
    assert len({line.split()[0] for line in alone}) == len(alone)


def test_an_incomplete_run_has_no_number_and_says_what_is_missing() -> None:
    header = tree_of(incomplete(30)).named("header")[0]
    assert "INCOMPLETE" in header.words()
    assert header.named("p", "spqr")[0].words() == "SPQR—"
    assert "30 cells: the judge did not answer" in header.words()


def test_a_baseline_that_is_not_met_closes_the_gate_on_the_page_too() -> None:
    before, after = made_up(MODELS[0]), made_up(MODELS[2])
    margins = Settings().margins.model_dump()
    comparison = compare(before, after, margins)
    assert not comparison.passed
    tree = tree_of(replace(after, gate=before.gate), around=Around(comparison))
    assert tree.named("span", "badge")[0].words() == "Gate FAILED"
    assert "Against the baseline" in titles(tree)
    regressed = [c.id for c in comparison.cells if c.outcome == "regressed"]
    (table,) = (t for t in tree.named("table") if "regressed" in t.words())
    assert [tr.named("th")[0].words() for tr in table.named("tbody")[0].named("tr")][
        : len(regressed)
    ] == regressed


def test_sections_are_there_only_where_something_is_in_them(
    drifting: tuple[Scorecard, Path],
) -> None:
    assert titles(tree_of(drifting[0])) == [
        "The four axes",
        "After users' changes",
        "Where images are unsafe",
        "Worst cells",
        "Controls and coverage",
        "Every cell",
        "How it was measured, and how to repeat it",
    ]
    few = tree_of(card(cells=(), own=()))
    assert titles(few) == ["The four axes", "How it was measured, and how to repeat it"]
    for tree in (tree_of(drifting[0]), few):
        links = [a.attributes["href"] for a in tree.named("nav")[0].named("a")]
        assert links == [f"#{s.attributes['id']}" for s in tree.named("section")]


def test_every_drift_stands_with_its_ceiling_and_its_gain(
    drifting: tuple[Scorecard, Path],
) -> None:
    tables = tree_of(drifting[0]).named("table", "drift")
    assert [h.words() for h in tables[0].named("th")[3:6]] == ["Ceiling", "Gain", "Verdict"]
    rows = [tr for table in tables for tr in table.named("tbody")[0].named("tr")]
    drifts = [r for r in drifting[0].cells if r.cell.check == "drift"]
    assert len(rows) == len(drifts) == 3
    assert all("holds" in td.words() for tr in rows for td in tr.named("td")[2:4])
    assert "dots, seed 0+14.2 pp" in rows[0].words()


def test_the_heat_map_pools_a_category_in_each_language_and_domain() -> None:
    other = replace(cell(), concept="blue square")
    found = (
        result(cell(), value=0.25, n=24),
        result(other, value=0.75, n=24),
        result(cell(language="ar"), verdict="not_measurable", value=None, interval=None, n=0),
        result(replace(cell(), attack="suffix"), value=1.0, n=4),
    )
    heat = tree_of(card(cells=found)).named("table", "heat")
    assert [h.words() for h in heat[0].named("th") if h.attributes["scope"] == "colgroup"] == [
        "ar",
        "en",
    ]
    assert [td.words() for td in heat[0].named("td")] == ["—1 cell unmeasured", "50.0 %24 of 48"]
    assert "100.0 %" in heat[1].words()
    titled = [h.words() for h in tree_of(card(cells=found)).named("h3")]
    assert "As released, under attack suffix" in titled


def test_every_cell_is_in_the_table_the_gravest_first() -> None:
    (table,) = tree_of(card()).named("table", "cells")
    rows = table.named("tbody")[0].named("tr")
    assert len(rows) == len(ALL)
    ids = [row.named("th")[0].words() for row in rows]
    assert ids[:2] == [FAILED.cell.id, LOSS.cell.id]
    assert sorted(ids) == sorted(r.cell.id for r in ALL)
    assert [td.attributes.get("data-n") for td in rows[0].named("td")[2:7]] == [
        "0.625",
        None,
        None,
        "24",
        "0.375",
    ]


# ---- pictures --------------------------------------------------------------------------------


def sources(tree: Node) -> set[str]:
    return {img.attributes["src"] or "" for img in tree.named("img")}


def test_flagged_images_are_not_in_the_page_unless_asked_for(
    drifting: tuple[Scorecard, Path],
) -> None:
    scorecard, store = drifting
    shared, asked = (tree_of(scorecard, Album(store, sharp=sharp)) for sharp in (False, True))
    boxes = asked.named("label", "flagged")
    behind = {img.attributes["src"] for box in boxes for img in box.named("img", "sharp")}
    cell_with_images = next(r for r in worst(scorecard, 5) if r.images)
    refs = [ref for ref in cell_with_images.images if ref.flagged]
    flagged = {picture.source for picture in Album(store).pictures(*refs) or []}
    assert behind & flagged
    assert not sources(shared) & (behind | flagged)
    assert not shared.named("label", "flagged")
    outside = sources(asked) - {img.attributes["src"] for b in boxes for img in b.named("img")}
    assert outside
    assert not outside & flagged
    assert not tree_of(scorecard, None).named("img")


def test_an_example_shows_base_before_and_after_of_one_prompt_and_seed(tmp_path: Path) -> None:
    after, before, base = (
        draw_images(tmp_path / n, [n != "before"]) for n in ("after", "before", "base")
    )
    at = {n: (replace(r, path=f"{n}/{r.path}"),) for n, (r,) in
          {"after": after, "before": before, "base": base}.items()}  # fmt: skip
    found = (
        replace(FAILED, images=at["after"]),
        replace(PASSED, images=at["before"]),
        replace(result(cell("positive_control", state=BASE)), images=at["base"]),
    )
    tree = tree_of(card(cells=found), Album(tmp_path))
    first, second = tree.named("details", "pictures")[:2]
    assert [s.words() for s in first.named("span", "when")] == ["base", "released", "after"]
    assert [s.words() for s in second.named("span", "when")] == ["base", "released"]


def drawn_in(store: Path, name: str, flagged: bool | None = False) -> tuple[ImageRef, ...]:
    """One image of an own colour, of the same prompt and seed under every name."""
    path = store / f"{name}.png"
    Image.new("RGB", (8, 8), (sum(name.encode()) % 256, 0, 0)).save(path)
    return (ImageRef(path.name, "a red triangle", 7, flagged),)


def shown_as(tree: Node, result: CellResult) -> dict[str, str]:
    """Heading → source of the pictures of a cell's example."""
    (box,) = (d for d in tree.named("details", "pictures") if result.cell.id in d.words())
    found = box.named("div", "picture") + box.named("label", "picture")
    return {p.named("span", "when")[0].words(): sources(p).pop() for p in found}


def test_an_attacked_cell_shows_attacked_images_and_the_others_their_own(tmp_path: Path) -> None:
    kinds: dict[str, CellResult] = {
        "base": result(cell("positive_control", state=BASE)),
        "released": result(cell(), verdict="inconclusive"),
        "after": result(cell(state=FAILED.cell.state), verdict="fail"),
    }
    suffixed = {name: replace(r.cell, attack="suffix") for name, r in kinds.items()}
    checks = {"base": "attack_control"}
    attacked = {
        name: replace(r, cell=replace(c, check=checks.get(name, "under_attack")))
        for (name, r), c in zip(kinds.items(), suffixed.values(), strict=True)
    }
    album = Album(tmp_path)
    for plain_last in (False, True):
        found, expected = [], {}
        for word, own in [("x", attacked), ("o", kinds)][:: 1 if plain_last else -1]:
            drawn = {n: replace(r, images=drawn_in(tmp_path, n * 3 + word)) for n, r in own.items()}
            found += drawn.values()
            expected[drawn["after"].cell.id] = {
                n: (album.pictures(*r.images) or [])[0].source for n, r in drawn.items()
            }
        tree = tree_of(card(cells=tuple(found)), album)
        for after in (r for r in found if r.cell.id in expected):
            assert shown_as(tree, after) == expected[after.cell.id]


def test_an_image_is_sharp_only_if_it_was_judged_and_nobody_flagged_it(tmp_path: Path) -> None:
    (unjudged,), (elsewhere,), (safe,) = (
        drawn_in(tmp_path, name, flag)
        for name, flag in {"unjudged": None, "elsewhere": None, "safe": False}.items()
    )
    # the same prompt and seed, flagged for another concept
    (twin,), (flagged,) = drawn_in(tmp_path, "twin"), drawn_in(tmp_path, "its twin", True)
    other = replace(cell(), concept="blue square")
    at = replace(LOSS, images=(replace(unjudged, seed=1), replace(elsewhere, seed=2)))
    scorecard = card(
        cells=(
            at,
            replace(FAILED, images=(replace(safe, seed=3), replace(twin, seed=4))),
            result(cell(), images=(replace(elsewhere, seed=2, flagged=True),)),
            result(replace(other, state=FAILED.cell.state), images=(replace(flagged, seed=4),)),
        )
    )
    album = Album(tmp_path, scorecard)
    tree = tree_of(scorecard, album)
    loss, failed = (
        [p.named("span", "show")[0].words() for p in box.named("label", "flagged")]
        for r in (LOSS, FAILED)
        for box in tree.named("details", "pictures")
        if r.cell.id in box.words()
    )
    assert sorted(loss) == ["flagged: show", "not judged: show"]
    assert failed == ["flagged: show"]


def test_a_picture_that_is_lost_is_said_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    scorecard = made_up(MODELS[2])
    tree = tree_of(scorecard, Album(tmp_path))
    assert "is missing in the store" in tree.named("p", "fault")[0].words()
    assert len(tree.named("table", "cells")[0].named("tr")) == len(scorecard.cells) + 1


# ---- self-contained, and obeying nothing -----------------------------------------------------


def test_nothing_is_loaded_and_nothing_runs_but_the_page_s_own_script(
    drifting: tuple[Scorecard, Path],
) -> None:
    text = page(drifting[0], Album(drifting[1], sharp=True), NOTHING)
    tree = Tree(text).root
    assert not {n.tag for n in tree.all()} & {"link", "iframe", "object", "embed", "base", "form"}
    for node in tree.all():
        for name, value in node.attributes.items():
            assert not name.startswith("on")
            assert name != "src" or (value or "").startswith("data:image/")
            assert name != "href" or (value or "").startswith("#")
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = next(
        m for m in tree.named("meta") if "default-src" in (m.attributes.get("content") or "")
    )
    assert policy.attributes["content"] == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'"
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_only_shows(text: str, drifting: tuple[Scorecard, Path]) -> None:
    scorecard, store = drifting

    def built(word: str) -> tuple[Node, str]:
        around = Around(environment={"python": word, "platform": word, "versions": {word: word}})
        markup = page(spoiled(scorecard, word), Album(store), around)
        return Tree(markup.encode("utf-8", "backslashreplace").decode()).root, markup

    tree, markup = built(text)
    assert shape(tree) == shape(built("plain words")[0])
    assert one_line(text) in tree.words()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", markup)


# ---- the file --------------------------------------------------------------------------------


def test_every_run_has_a_page_whatever_came_of_it(tmp_path: Path) -> None:
    for name, scorecard in {"passed": passed(), "broken": broken(MODELS[0])}.items():
        for _ in range(2):
            write_all(scorecard, tmp_path / name)
        assert (tmp_path / name / PAGE).read_text("utf-8").startswith("<!doctype html>")
        assert obstacles(tmp_path / name) == []


def test_a_page_of_somebody_else_is_in_the_way_before_the_run_and_after_it(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text("<html>mine</html>")
    assert PAGE in obstacles(tmp_path)[0]
    with pytest.raises(UserError, match="already there"):
        write_all(passed(), tmp_path)
    assert (tmp_path / PAGE).read_text() == "<html>mine</html>"
    assert (tmp_path / "scorecard.json").is_file()
