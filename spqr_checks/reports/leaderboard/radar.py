"""Radar charts: the four axes of each candidate, all drawn to one scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spqr_checks.matrix import AXES
from spqr_checks.reports.leaderboard.markup import Html, element, outside, together, words
from spqr_checks.reports.leaderboard.wording import rank_text
from spqr_checks.reports.text import NOTHING, score
from spqr_checks.scoring.board import Leaderboard, Row

_RADIUS = 70.0
_WIDTH, _HEIGHT = 260.0, 210.0
_RINGS = (0.25, 0.5, 0.75, 1.0)


def radars(board: Leaderboard) -> Html:
    """One chart for each candidate that has a scorecard; S at the top, clockwise to R."""
    rows = [row for row in board.rows if any(_is_known(row, kind) for kind in ("score", "raw"))]
    return element("div", together(map(_figure, rows)), class_="radars") if rows else Html("")


def _is_known(row: Row, kind: str) -> bool:
    return any(getattr(axis, kind) is not None for axis in row.axes.values())


def _figure(row: Row) -> Html:
    scores = [row.axes[name].score for name in AXES]
    raw = [row.axes[name].raw for name in AXES]
    chart = element(
        "svg",
        *(_polygon("ring", [ring] * 4) for ring in _RINGS),
        *(_spoke(number) for number in range(4)),
        _polygon("raw", raw),
        _polygon("score", scores),
        *(_dot(number, value) for number, value in enumerate(scores)),
        *(_label(number, value) for number, value in enumerate(scores)),
        viewBox=f"{-_WIDTH / 2:g} {-_HEIGHT / 2:g} {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        aria_label=_described(row),
    )
    rank = element("span", words(rank_text(row)), class_="rank")
    return element("figure", chart, element("figcaption", rank, Html(" "), outside(row.name)))


def _described(row: Row) -> str:
    return f"{row.name}: " + ", ".join(
        f"{name} {score(row.axes[name].score)} (raw {score(row.axes[name].raw)})" for name in AXES
    )


def _point(number: int, value: float) -> tuple[float, float]:
    angle = math.pi / 2 * number
    radius = _RADIUS * min(1.0, max(0.0, value))
    return radius * math.sin(angle), -radius * math.cos(angle)


def _polygon(kind: str, values: Sequence[float | None]) -> Html:
    """A closed line through the values; none where one is unknown, as it would look like zero."""
    if any(value is None for value in values):
        return Html("")
    corners = (_point(number, value or 0.0) for number, value in enumerate(values))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return element("polygon", class_=kind, points=points)


def _spoke(number: int) -> Html:
    x, y = _point(number, 1.0)
    return element("line", class_="spoke", x1="0", y1="0", x2=f"{x:.1f}", y2=f"{y:.1f}")


def _dot(number: int, value: float | None) -> Html:
    if value is None:
        return Html("")
    x, y = _point(number, value)
    return element("circle", class_="dot", cx=f"{x:.1f}", cy=f"{y:.1f}", r="3.5")


def _label(number: int, value: float | None) -> Html:
    x, y = _point(number, 1.0)
    sideways = number % 2 == 1
    anchor = ("middle", "start", "middle", "end")[number]
    text = f"{list(AXES)[number]} {score(value) if value is not None else NOTHING}"
    return element(
        "text",
        words(text),
        class_="label",
        x=f"{x * 1.09:.1f}",
        y=f"{y + 4 if sideways else y * 1.09 + (0 if number == 0 else 10):.1f}",
        text_anchor=anchor,
    )
