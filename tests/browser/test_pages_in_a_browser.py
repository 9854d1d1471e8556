"""The pages in a real browser: blur, keyboard, filters, a phone, and axe-core's rules.

`make browser` brings what these tests need: playwright's client, for a Chromium of the system, and
axe-core. They are skipped where one of them is missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boards import MODELS, broken, card

from spqr_checks.reports.album import Album
from spqr_checks.reports.history.page import page as history_page
from spqr_checks.reports.leaderboard.page import page as leaderboard_page
from spqr_checks.reports.run_page.page import Around
from spqr_checks.reports.run_page.page import page as run_page
from spqr_checks.scoring.history import Release
from spqr_checks.scoring.leaderboard.board import Entry
from spqr_checks.scoring.leaderboard.rank import rank

pytestmark = pytest.mark.slow
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright; `make browser`")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on the path")
    # a sandbox of its own is refused to root
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one page of each kind, of a candidate that loses its safety."""
    folder = tmp_path_factory.mktemp("pages")
    scorecard = card(MODELS[2], folder / "store")
    cards = {model.name: card(model) for model in MODELS[:3]}
    releases = [Release(f"2026-{n:02}", one) for n, one in enumerate(cards.values(), 1)]
    releases.insert(1, Release("2026-01b", broken(MODELS[0])))
    board = rank([Entry(name, one) for name, one in cards.items()])
    made = {
        "run": run_page(scorecard, Album(folder / "store", sharp=True), Around()),
        "incomplete": run_page(broken(MODELS[0]), None, Around()),
        "leaderboard": leaderboard_page(board, cards, Album(folder / "store")),
        "history": history_page(releases),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def run(browser: Any, pages: Path) -> Iterator[Any]:
    """The page of a run, in a window of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    shown = context.new_page()
    shown.goto((pages / "run.html").as_uri())
    yield shown
    context.close()


def test_flagged_images_are_blurred_until_the_space_bar_is_pressed(run: Any) -> None:
    picture = run.locator("details[open] label.picture.flagged").first
    veil, sharp = picture.locator("img.veil"), picture.locator("img.sharp")
    assert veil.is_visible()
    assert not run.locator("label.flagged img.sharp").evaluate_all(
        "images => images.some((image) => image.checkVisibility())"
    )
    picture.locator("input").focus()
    run.keyboard.press("Space")
    assert sharp.is_visible()
    assert not veil.is_visible()
    run.keyboard.press("Space")
    assert veil.is_visible()


def test_everything_that_can_be_used_is_reached_by_the_tab_key_and_shows_it(run: Any) -> None:
    reached = []
    for _ in range(40):
        run.keyboard.press("Tab")
        found = run.evaluate(
            "() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " const frame = e.closest('.picture');"
            " const seen = frame ? getComputedStyle(frame) : s;"
            " return [e.localName, e.getAttribute('role'), seen.outlineStyle]; }"
        )
        reached.append(tuple(found))
    assert {"a", "summary", "div", "input", "button"} <= {name for name, *_ in reached}
    assert "region" in {role for _, role, _ in reached}
    assert all(outline != "none" for name, _, outline in reached if name != "body")


def test_the_table_of_cells_fits_a_window_of_1280_pixels(run: Any) -> None:
    around = run.locator("div.scroll:has(table.cells)")
    assert around.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_the_table_sorts_by_a_heading_and_says_how(run: Any) -> None:
    heading = run.locator("table.cells th", has_text="Value").locator("button")
    heading.focus()
    for order, sign in (("ascending", 1), ("descending", -1)):
        run.keyboard.press("Enter")
        assert heading.locator("..").get_attribute("aria-sort") == order
        values = run.locator("table.cells tbody tr").evaluate_all(
            "rows => rows.map((row) => Number(row.cells[3].dataset.n))"
        )
        assert values == sorted(values, reverse=sign < 0)
    assert run.locator("table.cells th[aria-sort]").count() == 1


def test_the_table_is_filtered_by_words_and_choices_and_says_how_many_are_left(run: Any) -> None:
    rows = run.locator("table.cells tbody tr")
    every = rows.count()
    run.get_by_label("Verdict").select_option("failed")
    left = run.locator("table.cells tbody tr:visible")
    assert 0 < left.count() < every
    assert {text.strip() for text in left.locator("td.verdict").all_inner_texts()} == {"failed"}
    status = run.locator("#cell-filters [role=status]")
    assert status.inner_text() == f"{left.count()} of {every} cells"
    run.get_by_label("Words").fill("drift nothing of that name")
    assert status.inner_text() == f"0 of {every} cells"
    run.get_by_label("Words").fill("")
    run.get_by_label("Verdict").select_option("")
    assert left.count() == every


def test_without_a_script_the_whole_table_is_there_and_nothing_that_does_nothing(
    browser: Any, pages: Path
) -> None:
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto((pages / "run.html").as_uri())
    assert shown.locator("table.cells tbody tr:visible").count() == len(card(MODELS[2]).cells)
    assert shown.locator("button, select, input[type=search]").count() == 0
    picture = shown.locator("details[open] label.picture.flagged").first
    picture.click()
    assert picture.locator("img.sharp").is_visible()
    context.close()


@pytest.mark.parametrize("name", ["run", "incomplete", "history", "leaderboard"])
def test_a_phone_shows_the_verdict_without_scrolling_sideways(
    name: str, browser: Any, pages: Path
) -> None:
    context = browser.new_context(viewport=PHONE)
    shown = context.new_page()
    shown.goto((pages / f"{name}.html").as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    if name != "leaderboard":
        for part in (".spqr strong", ".badge"):
            box = shown.locator(part).first.bounding_box()
            assert 0 <= box["x"] <= box["x"] + box["width"] <= PHONE["width"]
            assert box["y"] + box["height"] <= PHONE["height"]
    context.close()


@pytest.mark.parametrize("name", ["run", "incomplete", "history", "leaderboard"])
def test_a_page_asks_for_nothing_and_complains_of_nothing(
    name: str, browser: Any, pages: Path
) -> None:
    context = browser.new_context()
    shown = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.goto((pages / f"{name}.html").as_uri())
    shown.wait_for_load_state("networkidle")
    assert [url for url in asked if not url.startswith("data:")] == [shown.url]
    assert said == []
    context.close()


def test_a_script_that_a_text_brings_does_not_run(browser: Any, tmp_path: Path) -> None:
    """Even if it got past the escaping: the policy names one script by its digest."""
    text = run_page(card(MODELS[0]), None, Around())
    text = text.replace("<main>", "<main><script>document.title = 'run'</script>", 1)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    context = browser.new_context()
    shown = context.new_page()
    shown.goto((tmp_path / "page.html").as_uri())
    assert shown.title() != "run"
    assert shown.locator("table.cells button").count() > 0
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "incomplete", "history", "leaderboard"])
def test_axe_finds_nothing(name: str, scheme: str, browser: Any, pages: Path) -> None:
    if not AXE.is_file():
        pytest.skip("there is no axe-core; `make browser`")
    context = browser.new_context(bypass_csp=True, color_scheme=scheme)
    shown = context.new_page()
    shown.goto((pages / f"{name}.html").as_uri())
    shown.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
    shown.evaluate(AXE.read_text(encoding="utf-8"))
    found = shown.evaluate("axe.run()")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert len(found["passes"]) > 20
    context.close()


def test_axe_would_find_something(browser: Any, pages: Path) -> None:
    if not AXE.is_file():
        pytest.skip("there is no axe-core; `make browser`")
    context = browser.new_context(bypass_csp=True)
    shown = context.new_page()
    shown.goto((pages / "run.html").as_uri())
    shown.evaluate("document.querySelector('input[type=search]').parentElement.replaceWith(\n"
                   "  document.querySelector('input[type=search]'))")  # fmt: skip
    shown.evaluate(AXE.read_text(encoding="utf-8"))
    assert "label" in [one["id"] for one in shown.evaluate("axe.run()")["violations"]]
    context.close()
