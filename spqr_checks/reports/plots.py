"""Geometry of the plots on a page: numbers in, coordinates out; the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spqr_checks.matrix import AXES, Axis
from spqr_checks.reports.text import score, shorten
from spqr_checks.scoring.axes import AxisSummary
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.leaderboard.board import AxisScore, Drift

Point = tuple[float, float]
_RADIUS = 70.0
_RINGS = (0.25, 0.5, 0.75, 1.0)
_ANCHORS = ("middle", "start", "middle", "end")


def bar(value: float | None, interval: Point | None) -> list[tuple[str, float, float]]:
    """Kind, left edge and width of each rectangle of a bar from 0 to 1, in percent of its width."""
    ends = [("track", (0.0, 1.0)), ("value", None if value is None else (0.0, value))]
    shapes = []
    for kind, span in [*ends, ("interval", interval)]:
        if span is not None:
            low, high = (100 * min(1.0, max(0.0, end)) for end in span)
            # an interval of no width would not show
            shapes.append((kind, low, max(high - low, 1.0 if kind == "interval" else 0.0)))
    return shapes


@dataclass(frozen=True, slots=True)
class Scale:
    """Percentage points from ``low`` to ``high`` across ``width`` units."""

    low: float
    high: float
    width: int = 300

    def x(self, points: float) -> float:
        """Where the points stand, with a margin of 5 units on both sides."""
        return 5 + (self.width - 10) * (points - self.low) / max(self.high - self.low, 1.0)


def scale(drifts: Iterable[Drift | CellResult]) -> Scale:
    """What every plot of drifts covers: zero, limits and intervals, rounded outwards to tens."""
    ends = [0.0]
    for drift in drifts:
        ends += [drift.threshold, *(drift.interval or ())]
        ends += [] if drift.value is None else [drift.value]
    return Scale(10 * (min(ends) // 10), -10 * (-max(ends) // 10))


@dataclass(frozen=True, slots=True)
class Label:
    """A text beside an axis."""

    x: float
    y: float
    anchor: str
    text: str


@dataclass(frozen=True, slots=True)
class Radar:
    """The four axes of a candidate; S at the top, clockwise to R.

    ``rings`` and ``outlines`` (by kind, "raw" and "score") are corners as SVG writes them. An
    outline is missing where one of its values is unknown, as it would look like zero.
    """

    rings: list[str]
    spokes: list[Point]
    outlines: dict[str, str]
    dots: list[Point]
    labels: list[Label]
    text: str


def radar(axes: Mapping[Axis, AxisScore | AxisSummary]) -> Radar | None:
    """The chart, or None where no axis has a value."""
    scores, raws = [axes[name].score for name in AXES], [axes[name].raw for name in AXES]
    if not any(value is not None for value in (*scores, *raws)):
        return None
    outlines = {"raw": _corners(raws), "score": _corners(scores)}
    return Radar(
        rings=[_corners([ring] * 4) for ring in _RINGS],
        spokes=[_point(number, 1.0) for number in range(4)],
        outlines={kind: corners for kind, corners in outlines.items() if corners},
        dots=[_point(number, value) for number, value in enumerate(scores) if value is not None],
        labels=[_label(n, f"{name} {score(scores[n])}") for n, name in enumerate(AXES)],
        text=", ".join(
            f"{name} {score(value)} (raw {score(raw)})"
            for name, value, raw in zip(AXES, scores, raws, strict=True)
        ),
    )


def _point(number: int, value: float) -> Point:
    angle = math.pi / 2 * number
    radius = _RADIUS * min(1.0, max(0.0, value))
    return radius * math.sin(angle), -radius * math.cos(angle)


def _corners(values: Sequence[float | None]) -> str:
    points = [_point(number, value) for number, value in enumerate(values) if value is not None]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points) if len(points) == len(values) else ""


def _label(number: int, text: str) -> Label:
    x, y = _point(number, 1.0)
    below = y + 4 if number % 2 else y * 1.09 + (0 if number == 0 else 10)
    return Label(x * 1.09, below, _ANCHORS[number], text)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A score from 0 to 1 over releases, which stand side by side.

    ``lines`` are corners of the unbroken stretches, ``spans`` ends of intervals: x, low, high.
    """

    width: float
    height: float
    lines: list[str]
    spans: list[tuple[float, float, float]]
    dots: list[Point]
    labels: list[Label]
    text: str


_STEP, _HEIGHT, _MOST_NAMES = 44.0, 110.0, 6


def timeline(names: Sequence[str], values: Sequence[tuple[float | None, Point | None]]) -> Timeline:
    """The chart of values with their intervals, one for each name; at least one."""
    at = [(30.0 + _STEP * n, value, interval) for n, (value, interval) in enumerate(values)]
    stretches: list[list[Point]] = [[]]
    for x, value, _ in at:
        if value is None:
            stretches.append([])
        else:
            stretches[-1].append((x, _height(value)))
    every = -(-len(names) // _MOST_NAMES)
    # the latest release is always named
    named = [n for n in range(len(names)) if (len(names) - 1 - n) % every == 0]
    labels = [Label(at[n][0], _HEIGHT + 16, "middle", shorten(names[n], 9)) for n in named]
    labels += [Label(14.0, _height(end) + 4, "end", f"{end:g}") for end in (0.0, 1.0)]
    return Timeline(
        width=60.0 + _STEP * (len(names) - 1),
        height=_HEIGHT + 24,
        lines=[" ".join(f"{x:.1f},{y:.1f}" for x, y in s) for s in stretches if len(s) > 1],
        spans=[(x, _height(i[0]), _height(i[1])) for x, _, i in at if i is not None],
        dots=[point for stretch in stretches for point in stretch],
        labels=labels,
        text=", ".join(f"{n} {score(v)}" for n, (v, _) in zip(names, values, strict=True)),
    )


def _height(value: float) -> float:
    return 8 + (_HEIGHT - 8) * (1 - min(1.0, max(0.0, value)))
