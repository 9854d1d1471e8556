"""The HTML page: self-contained, obeying nothing it is given, usable without a mouse."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from boards import MODELS, broken, card
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import HOSTILE, Node, Tree, shape, spoiled
from syrupy.assertion import SnapshotAssertion

from spqr_checks.errors import UserError
from spqr_checks.reports.album import Album
from spqr_checks.reports.leaderboard.page import page, write
from spqr_checks.reports.text import one_line
from spqr_checks.scoring.leaderboard.board import Entry, Leaderboard
from spqr_checks.scoring.leaderboard.rank import rank
from spqr_checks.scoring.scorecard import Scorecard


def cards_of(store: Path | None = None) -> dict[str, Scorecard]:
    cards = {model.name: card(model, store) for model in MODELS}
    return cards | {"method:sdd": broken(replace(MODELS[0], name="method:sdd"))}


def board_of(cards: dict[str, Scorecard]) -> Leaderboard:
    lost = Entry("lost", None, "its run was killed by signal 9 without a scorecard")
    return rank([*(Entry(name, c) for name, c in cards.items()), lost])


def text_of(cards: dict[str, Scorecard], store: Path) -> str:
    return page(board_of(cards), cards, Album(store))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    cards_of(root)
    return root


@pytest.fixture(scope="module")
def tree(store: Path) -> Node:
    return Tree(text_of(cards_of(), store)).root


# ---- what it shows ---------------------------------------------------------------------------


def test_the_page_without_its_pictures(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    cards = {name: c for name, c in cards_of().items() if name in ("method:uce", "method:sdd")}
    text = text_of(cards, tmp_path).replace(str(tmp_path), "STORE")
    assert text[text.index("<main>") :] == snapshot


@pytest.mark.heavy
def test_every_candidate_is_in_the_ranking_or_below_it_with_its_reason(tree: Node) -> None:
    ranked, others = tree.named("section")[0].named("tbody")
    assert len(ranked.named("tr")) == len(MODELS)
    assert [row.named("th")[0].words() for row in others.named("tr")] == ["lost", "method:sdd"]
    assert "killed by signal 9" in others.words()
    assert "the judge did not answer" in others.words()


def test_what_is_not_decided_is_said(tree: Node) -> None:
    first = board_of(cards_of()).ranked[0]
    assert first.ranks == (1, 2)
    assert tree.named("td", "rank")[0].words() == "1–2"
    assert "rank not decided between method:uce and method:esd" in tree.words()


def test_each_section_has_something_in_it(tree: Node) -> None:
    titles = [h.words() for h in tree.named("h2")]
    assert titles == [
        "Ranking",
        "The four axes",
        "Unsafe images by category",
        "Drift by fine-tuning profile",
        "Before and after fine-tuning",
        "Candidates",
        "Measured with",
    ]
    assert len(tree.named("polygon", "score")) == len(MODELS)
    heat = tree.named("table", "heat")[0]
    assert [th.words() for th in heat.named("th") if th.attributes["scope"] == "colgroup"] == [
        "insignia",
        "signals",
        "warnings",
    ]
    # candidates stand below each other, in the order of their ranks
    below = [th.words() for th in heat.named("th") if th.attributes["scope"] == "row"]
    assert below == ["method:uce", "method:esd", "./candidates/2026-11", "base", "method:sdd"]
    assert [h.words() for h in tree.named("h3")[-2:]] == ["Profile lite", "Profile standard"]


def test_candidates_are_folded(tree: Node) -> None:
    folded = list(tree.named("section")[5].named("details"))
    assert len(folded) == len(MODELS) + 2
    assert all("open" not in d.attributes for d in folded)


def test_no_candidate_at_all_is_a_page_too(tmp_path: Path) -> None:
    board = rank([Entry("lost", None, "no scorecard")])
    assert "no scorecard" in Tree(page(board, {}, Album(tmp_path))).root.words()


# ---- self-contained --------------------------------------------------------------------------


def test_nothing_is_loaded_and_nothing_runs(tree: Node) -> None:
    tags = {n.tag for n in tree.all()}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    for node in tree.all():
        for name, value in node.attributes.items():
            assert not name.startswith("on")
            assert name not in ("href", "srcset", "action")
            if name == "src":
                assert re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", value or "")
    (policy,) = [
        m for m in tree.named("meta") if m.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.attributes["content"] == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    )
    (css,) = tree.named("style")
    assert "url(" not in css.words()
    assert "@import" not in css.words()


def test_light_and_dark_are_both_there(tree: Node) -> None:
    css = tree.named("style")[0].words()
    assert "prefers-color-scheme: dark" in css


# ---- nothing given is obeyed -----------------------------------------------------------------


@pytest.mark.heavy
@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_only_shows(text: str, store: Path) -> None:
    def built(word: str) -> tuple[Node, str]:
        cards = {f"{word} {i}": spoiled(card(MODELS[i]), word) for i in (0, 2)}
        entries = [*(Entry(n, c) for n, c in cards.items()), Entry("lost", None, word)]
        text = page(rank(entries), cards, Album(store))
        return Tree(text.encode("utf-8", "backslashreplace").decode()).root, text

    plain, _ = built("plain words")
    tree, markup = built(text)
    assert shape(tree) == shape(plain)
    assert one_line(text) in tree.words()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", markup)


def renamed(board: Leaderboard, text: str) -> Leaderboard:
    """The leaderboard with the text in every name, reason and description."""
    rows = [
        replace(
            row,
            name=f"{text} {row.name}",
            reason=row.reason and text,
            categories={f"{text} {name}": found for name, found in row.categories.items()},
            drifts=tuple(
                replace(drift, profile=f"{text} {drift.profile}", dataset=text, reason=text)
                for drift in row.drifts
            ),
            protocols={f"{text} {name}": score for name, score in row.protocols.items()},
            fingerprint=text,
        )
        for row in board.rows
    ]
    comparisons = [
        replace(c, above=f"{text} {c.above}", below=f"{text} {c.below}") for c in board.comparisons
    ]
    return replace(
        board,
        protocol=text,
        rows=tuple(rows),
        comparisons=tuple(comparisons),
        base={"name": text},
        judges=[{"judge": text}],
        settings={"reference": text},
    )


CARDS = {model.name: card(model) for model in MODELS[:2]}
BOARD = rank([*(Entry(name, c) for name, c in CARDS.items()), Entry("lost", None, "no scorecard")])


def shape_with(text: str) -> list[tuple[str, tuple[str, ...]]]:
    cards = {f"{text} {name}": spoiled(c, text) for name, c in CARDS.items()}
    markup = page(renamed(BOARD, text), cards, Album(Path("no store")))
    return shape(Tree(markup.encode("utf-8", "backslashreplace").decode()).root)


@pytest.mark.heavy
@settings(deadline=None, max_examples=25)
@given(st.text(st.characters() | st.sampled_from("<>&\"'`{}%#=/"), min_size=1))
def test_no_text_changes_what_the_page_is_made_of(text: str) -> None:
    assert shape_with(text) == shape_with("plain words")


def test_text_of_another_direction_is_kept_apart(store: Path) -> None:
    cards = {"مثلث": CARDS[MODELS[0].name]}
    text = page(rank([Entry(name, c) for name, c in cards.items()]), cards, Album(store))
    assert '<th scope="row"><bdi dir="auto">مثلث</bdi></th>' in text


# ---- flagged images, and use without a mouse -------------------------------------------------


def test_flagged_images_wait_behind_a_checkbox(tree: Node) -> None:
    flagged = tree.named("label", "flagged")
    assert flagged
    for label in flagged:
        box, veil, sharp = label.named("input") + label.named("img")
        assert box.attributes["type"] == "checkbox"
        assert "checked" not in box.attributes
        assert (box.attributes["aria-label"] or "").startswith("show the flagged image")
        assert veil.attributes["class"] == "veil"
        assert "sharp" in (sharp.attributes["class"] or "").split()
        assert veil.attributes["src"] != sharp.attributes["src"]
    css = re.sub(r"\s+", " ", tree.named("style")[0].words())
    assert ".picture.flagged .sharp, .picture .hide { display: none; }" in css
    assert ".picture.flagged input:checked ~ .sharp { display: block; }" in css


@pytest.mark.heavy
def test_no_flagged_image_stands_outside_of_a_veil(tree: Node, store: Path) -> None:
    shown = Album(store)
    outside_of_labels = {
        img.attributes["src"] for div in tree.named("div", "picture") for img in div.named("img")
    }
    flagged = [i for c in cards_of().values() for r in c.cells for i in r.images if i.flagged]
    sources = {p.source for ref in flagged[:200] for p in (shown.pictures(ref) or [])}
    assert sources
    assert not sources & outside_of_labels


def test_everything_that_shows_has_words(tree: Node) -> None:
    assert all(img.attributes.get("alt") for img in tree.named("img"))
    for svg in tree.named("svg"):
        assert svg.attributes.get("aria-hidden") == "true" or svg.attributes.get("aria-label")
    for scrolling in tree.named("div", "scroll"):
        assert scrolling.attributes["tabindex"] == "0"
        assert scrolling.attributes["aria-label"]
    for th in tree.named("th"):
        assert th.attributes.get("scope")
    (html,) = tree.named("html")
    assert html.attributes["lang"] == "en"


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _mixed(colour: str, ground: str, share: float) -> str:
    pairs = [(int(colour[i : i + 2], 16), int(ground[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


def test_text_can_be_read_on_every_ground(tree: Node) -> None:
    css = tree.named("style")[0].words()
    themes = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", theme))
        for ink in ("ink", "quiet", "good", "warn", "bad"):
            for ground in ("ground", "panel"):
                assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        darkest = _mixed(colours["heat-colour"], colours["panel"], 0.55)
        assert _contrast(colours["ink"], darkest) >= 4.5


# ---- the file --------------------------------------------------------------------------------


def test_the_page_is_written_over_a_page_and_over_nothing_else(tmp_path: Path) -> None:
    board, path = rank([Entry("lost", None)]), tmp_path / "leaderboard.html"
    for _ in range(2):
        write(board, {}, tmp_path, path)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    path.write_text("<html>mine</html>")
    with pytest.raises(UserError, match="already there"):
        write(board, {}, tmp_path, path)


@pytest.mark.heavy
def test_equal_leaderboards_give_equal_pages(store: Path) -> None:
    cards = cards_of()
    backwards = dict(reversed(cards.items()))
    assert text_of(cards, store) == text_of(backwards, store)
