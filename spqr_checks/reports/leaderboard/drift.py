"""Drift of the unsafe rate by fine-tuning profile: an interval for every candidate."""

from __future__ import annotations

from collections.abc import Iterable

from spqr_checks.reports.leaderboard.markup import Html, element, outside, together, words
from spqr_checks.reports.leaderboard.ranking import scrolling
from spqr_checks.reports.text import NOTHING, VERDICTS, figure, one_line, span
from spqr_checks.scoring.board import Leaderboard, Row
from spqr_checks.scoring.breakdown import Drift

_WIDTH, _HEIGHT = 300.0, 18.0
Range = tuple[float, float]


def drifts(board: Leaderboard) -> Html:
    """A table for each profile, fine-tunings below one another, candidates in their rank order."""
    profiles = sorted({drift.profile for row in board.rows for drift in row.drifts})
    shown = _range(drift for row in board.rows for drift in row.drifts)
    return together(_profile(profile, board, shown) for profile in profiles)


def _range(drifts: Iterable[Drift]) -> Range:
    """Percentage points that every plot covers, rounded outwards to tens."""
    ends = [0.0]
    for drift in drifts:
        ends += [drift.threshold, *(drift.interval or ())]
        ends += [] if drift.value is None else [drift.value]
    low, high = min(ends), max(ends)
    return 10 * (low // 10), -10 * (-high // 10)


def _profile(profile: str, board: Leaderboard, shown: Range) -> Html:
    found = [(drift, row) for row in board.rows for drift in row.drifts if drift.profile == profile]
    # stable: candidates keep their order within a fine-tuning
    found.sort(key=lambda pair: (pair[0].dataset, pair[0].seed))
    scale = f"from {shown[0]:+.0f} to {shown[1]:+.0f} points; line: 0, dashed: limit"
    headings = [
        element("th", words("Fine-tuning"), scope="col"),
        element("th", words("Candidate"), scope="col"),
        element("th", words("Drift"), scope="col", class_="number"),
        element("th", words("Interval"), element("small", words(scale)), scope="col"),
        element("th", words("Verdict"), scope="col"),
    ]
    lines: list[Html] = []
    last = ""
    for drift, row in found:
        lines.append(_line(drift, row, shown, drift.name != last))
        last = drift.name
    table = element(
        "table",
        element("thead", element("tr", *headings)),
        element("tbody", together(lines)),
        class_="drift",
    )
    title = element("h3", words("Profile"), Html(" "), outside(profile))
    return together([title, scrolling(f"Drift under profile {profile}", table)])


def _line(drift: Drift, row: Row, shown: Range, is_first: bool) -> Html:
    tuning = f"{drift.dataset}, seed {drift.seed}"
    return element(
        "tr",
        element("td", outside(tuning) if is_first else Html("")),
        element("th", outside(row.name), scope="row"),
        element(
            "td",
            words(figure(drift.value, "points")),
            element("small", words(f"n {drift.n}" if drift.n else "")),
            class_="number",
        ),
        element("td", _plot(drift, shown)),
        element(
            "td",
            element("span", words(VERDICTS[drift.verdict]), class_=f"verdict {drift.verdict}"),
            element("small", words(drift.reason)) if drift.value is None else Html(""),
        ),
        class_="first" if is_first else None,
    )


def _plot(drift: Drift, shown: Range) -> Html:
    if drift.value is None:
        return words(NOTHING)
    shapes = [_upright("zero", 0.0, shown), _upright("limit", drift.threshold, shown)]
    if drift.interval is not None:
        low, high = (f"{_x(bound, shown):.1f}" for bound in drift.interval)
        middle = f"{_HEIGHT / 2:g}"
        shapes.append(
            element("line", class_="interval", x1=low, x2=high, y1=middle, y2=middle),
        )
    shapes.append(
        element(
            "circle",
            class_=f"dot {drift.verdict}",
            cx=f"{_x(drift.value, shown):.1f}",
            cy=f"{_HEIGHT / 2:g}",
            r="4",
        )
    )
    return element(
        "svg",
        *shapes,
        class_="forest",
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        aria_label=one_line(f"interval {span(drift.interval, 'points')}"),
    )


def _x(points: float, shown: Range) -> float:
    low, high = shown
    return 5 + (_WIDTH - 10) * (points - low) / max(high - low, 1.0)


def _upright(kind: str, points: float, shown: Range) -> Html:
    x = f"{_x(points, shown):.1f}"
    return element("line", class_=kind, x1=x, x2=x, y1="0", y2=f"{_HEIGHT:g}")
