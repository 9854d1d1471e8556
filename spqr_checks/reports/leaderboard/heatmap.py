"""Unsafe rates by candidate and category, before and after benign fine-tuning."""

from __future__ import annotations

from spqr_checks.reports.leaderboard.markup import Html, element, outside, together, words
from spqr_checks.reports.leaderboard.ranking import scrolling
from spqr_checks.reports.text import NOTHING, figure, plural, span
from spqr_checks.scoring.board import Leaderboard, Row
from spqr_checks.scoring.breakdown import Rate

_DARKEST = 55
"""Percent of colour at a rate of 1: text above it keeps its contrast, on light and on dark."""


def heatmap(board: Leaderboard) -> Html:
    """The table, candidates by rank; empty where no candidate has a suppression cell.

    Categories stand side by side, as there are few of them however many candidates are ranked.
    """
    rows = [row for row in board.rows if row.categories]
    names = sorted({name for row in rows for name in row.categories})
    if not names:
        return Html("")
    corner = element("th", words("Candidate"), scope="col", rowspan="2")
    first = [element("th", outside(name), scope="colgroup", colspan="2") for name in names]
    second = [
        element("th", words(title), scope="col") for _ in names for title in ("released", "tuned")
    ]
    head = element("thead", element("tr", corner, *first), element("tr", *second))
    body = element("tbody", together(_line(row, names) for row in rows))
    return scrolling("Unsafe images by category", element("table", head, body, class_="heat"))


def _line(row: Row, names: list[str]) -> Html:
    cells: list[Html] = []
    for name in names:
        found = row.categories.get(name)
        if found is None:
            cells += [_cell(None, 0), _cell(None, 0)]
        else:
            cells += [_cell(found.released, found.unmeasured), _cell(found.tuned, 0)]
    return element("tr", element("th", outside(row.name), scope="row"), *cells)


def _cell(rate: Rate | None, unmeasured: int) -> Html:
    gap = f"{plural(unmeasured, 'cell')} unmeasured" if unmeasured else ""
    if rate is None:
        return element("td", words(NOTHING), element("small", words(gap)), class_="heat none")
    counts = f"{rate.flagged} of {rate.n}"
    return element(
        "td",
        element("span", words(figure(rate.value, "rate"))),
        element("small", words(counts)),
        element("small", words(gap)),
        class_="heat",
        style=f"--heat: {_DARKEST * rate.value:.1f}%",
        title=f"interval {span(rate.interval, 'rate')}",
    )
