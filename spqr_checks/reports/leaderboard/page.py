"""The leaderboard as one HTML page that needs nothing but itself: no script, no other file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spqr_checks.reports.files import replace
from spqr_checks.reports.leaderboard.album import Album
from spqr_checks.reports.leaderboard.details import details, settings
from spqr_checks.reports.leaderboard.drift import drifts
from spqr_checks.reports.leaderboard.heatmap import heatmap
from spqr_checks.reports.leaderboard.markup import (
    Html,
    document,
    element,
    outside,
    style_sheet,
    together,
    words,
)
from spqr_checks.reports.leaderboard.pictures import pictures
from spqr_checks.reports.leaderboard.radar import radars
from spqr_checks.reports.leaderboard.ranking import ranking
from spqr_checks.reports.leaderboard.wording import headline, method_text, undecided
from spqr_checks.reports.markdown import described
from spqr_checks.scoring.board import Leaderboard
from spqr_checks.scoring.scorecard import Scorecard

MARK = "spqr-checks leaderboard"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Nothing is fetched and nothing runs, whatever a prompt or a name may hold."""


def write(board: Leaderboard, cards: Mapping[str, Scorecard], store_root: Path, path: Path) -> None:
    """Write the page. Raises UserError."""
    content = page(board, cards, Album(store_root)).encode("utf-8", "backslashreplace")
    replace(path, content, lambda old: f'content="{MARK}"'.encode() in old[:1000])


def page(board: Leaderboard, cards: Mapping[str, Scorecard], album: Album) -> Html:
    """The whole page.

    Args:
        cards: scorecards of the rows that have one, by name.
        album: where pictures come from; what it lacks is said on the page.
    """
    parts = [
        element("header", element("h1", words("SPQR leaderboard")), _about(board)),
        _section("Ranking", "", together([_open(board), ranking(board)])),
        _section(
            "The four axes",
            "Filled: with the pass factor, as ranked. Dashed: raw. S suppression at the top, then "
            "clockwise P prompt adherence, Q quality, R robustness; the outer ring is 1.",
            radars(board),
        ),
        _section(
            "Unsafe images by category",
            "Share of images that the judge flags, as released and after benign fine-tuning.",
            heatmap(board),
        ),
        _section(
            "Drift by fine-tuning profile",
            "Rise of the unsafe rate in percentage points, on equal prompts and seeds.",
            drifts(board),
        ),
        _section(
            "Before and after fine-tuning",
            "Equal prompts and seeds, newly unsafe pairs first. Flagged images are blurred; "
            "click one, or press the space bar on it, to see it.",
            pictures(board, cards, album),
        ),
        _section("Candidates", "", details(board, cards)),
        _section("Measured with", "", together([_things(board), settings(board)])),
        element("footer", element("p", words(method_text(board)))),
    ]
    return document("en", _head(), element("main", together(parts)))


def _head() -> Html:
    return together(
        [
            element("meta", charset="utf-8"),
            element("meta", name="generator", content=MARK),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", words("SPQR leaderboard")),
            style_sheet(Path(__file__).with_name("page.css").read_text(encoding="utf-8")),
        ]
    )


def _about(board: Leaderboard) -> Html:
    lines = [headline(board) + "."]
    if board.base:
        lines.append(f"Base: {board.base.get('name', 'unnamed')}.")
    return element("p", outside(" ".join(lines)))


def _open(board: Leaderboard) -> Html:
    sentences = undecided(board)
    if not sentences:
        return Html("")
    return element("ul", *(element("li", outside(s)) for s in sentences), class_="undecided")


def _things(board: Leaderboard) -> Html:
    things = [("base", board.base)] if board.base else []
    things += [("judge", judge) for judge in board.judges]
    if not things:
        return Html("")
    return element(
        "dl",
        together(
            together([element("dt", words(role)), element("dd", outside(described(thing)))])
            for role, thing in things
        ),
    )


def _section(title: str, lead: str, body: Html) -> Html:
    if not body:
        return Html("")
    intro = element("p", words(lead), class_="lead") if lead else Html("")
    return element("section", together([element("h2", words(title)), intro, body]))
