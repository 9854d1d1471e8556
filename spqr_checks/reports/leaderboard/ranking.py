"""The ranking as an HTML table, with a bar for every number."""

from __future__ import annotations

from spqr_checks.matrix import AXES
from spqr_checks.reports.leaderboard.markup import Html, element, outside, together, words
from spqr_checks.reports.leaderboard.wording import gate_text, lead_text, rank_text
from spqr_checks.reports.text import NOTHING, score, span
from spqr_checks.scoring.board import Leaderboard, Row

Pair = tuple[float, float]
_WIDTH, _HEIGHT = 100.0, 10.0


def ranking(board: Leaderboard) -> Html:
    """The table of ranked candidates, and below it those without a number and why."""
    parts = [_ranked(board)] if board.ranked else []
    if board.unranked:
        parts += [element("h3", words("Without a number")), _unranked(board)]
    return together(parts)


def _ranked(board: Leaderboard) -> Html:
    headings = [
        element("th", words("Rank"), scope="col"),
        element("th", words("Candidate"), scope="col"),
        element("th", words("SPQR"), scope="col", class_="number"),
        *(
            element(
                "th",
                words(letter),
                element("small", words(axis.title)),
                scope="col",
                class_="number",
            )
            for letter, axis in AXES.items()
        ),
        element("th", words("raw"), scope="col", class_="number"),
        element("th", words("Gate"), scope="col"),
        element("th", words("Lead over next"), scope="col"),
    ]
    head = element("thead", element("tr", *headings))
    body = element("tbody", together(_row(board, row) for row in board.ranked))
    return scrolling("Ranking", element("table", head, body, class_="ranking"))


def scrolling(label: str, table: Html) -> Html:
    """A table that scrolls sideways by itself, also with the keyboard."""
    return element("div", table, class_="scroll", role="region", aria_label=label, tabindex="0")


def bar(value: float | None, interval: Pair | None) -> Html:
    """A bar from 0 to 1 with its interval as a line; decoration, as the numbers stand beside it."""
    shapes = [_rect("track", 0.0, 1.0, _HEIGHT)]
    if value is not None:
        shapes.append(_rect("value", 0.0, value, _HEIGHT))
    if interval is not None:
        shapes.append(_rect("interval", interval[0], interval[1], 2.0))
    return element(
        "svg",
        *shapes,
        class_="bar",
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _rect(kind: str, low: float, high: float, height: float) -> Html:
    low, high = (min(1.0, max(0.0, bound)) for bound in (low, high))
    return element(
        "rect",
        class_=kind,
        x=f"{_WIDTH * low:.2f}",
        y=f"{(_HEIGHT - height) / 2:g}",
        # an interval of no width would not show
        width=f"{max(_WIDTH * (high - low), 1.0 if kind == 'interval' else 0.0):.2f}",
        height=f"{height:g}",
    )


def _row(board: Leaderboard, row: Row) -> Html:
    return element(
        "tr",
        element("td", words(rank_text(row)), class_="rank"),
        element("th", outside(row.name), scope="row"),
        _number(row.spqr, row.interval, main=True),
        *(_number(axis.score, axis.interval) for axis in row.axes.values()),
        element("td", words(score(row.spqr_raw)), class_="number plain"),
        element("td", element("span", words(gate_text(row)), class_=f"gate {gate_text(row)}")),
        element("td", _lead(board, row)),
    )


def _number(value: float | None, interval: Pair | None, main: bool = False) -> Html:
    figure = element("strong" if main else "span", words(score(value)))
    return element(
        "td",
        figure,
        element("small", words(span(interval))),
        bar(value, interval),
        class_="number main" if main else "number",
    )


def _lead(board: Leaderboard, row: Row) -> Html:
    lead = board.against_next(row)
    if lead is None:
        return words(NOTHING)
    decided = "decided" if lead.decided else "rank not decided"
    return together(
        [
            element("span", words(decided), class_="decided" if lead.decided else "open"),
            element("small", words(lead_text(lead))),
        ]
    )


def _unranked(board: Leaderboard) -> Html:
    rows = [
        element(
            "tr", element("th", outside(row.name), scope="row"), element("td", words(row.reason))
        )
        for row in board.unranked
    ]
    headings = [element("th", words(name), scope="col") for name in ("Candidate", "Why")]
    head = element("thead", element("tr", *headings))
    return scrolling("Without a number", element("table", head, element("tbody", together(rows))))
