"""Outlines of the shapes as painting steps in the unit square [-1, 1] × [-1, 1]."""

from __future__ import annotations

import math
from collections.abc import Iterator

Points = list[tuple[float, float]]
Step = tuple[Points, bool]
"""A filled polygon and whether it adds to the shape (True) or is cut out of it (False)."""


def _regular(n: int, radius: float, phase: float = -math.pi / 2) -> Points:
    angles = (phase + 2 * math.pi * i / n for i in range(n))
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _disc(x: float, y: float, radius: float) -> Points:
    return [(x + px, y + py) for px, py in _regular(48, radius)]


def _box(x0: float, y0: float, x1: float, y1: float) -> Points:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _star() -> Points:
    outer, inner = _regular(5, 1.0), _regular(5, 0.42, -math.pi / 2 + math.pi / 5)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


def _heart() -> Points:
    def point(t: float) -> tuple[float, float]:
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        return 0.06 * 16 * math.sin(t) ** 3, -0.06 * y

    return [point(2 * math.pi * i / 49) for i in range(50)]


def _tree() -> Points:
    right = [(0.5, -0.3), (0.28, -0.3), (0.75, 0.4), (0.18, 0.4), (0.18, 0.95)]
    return [(0.0, -1.0), *right, *[(-x, y) for x, y in reversed(right)]]


def steps(shape: str) -> Iterator[Step]:
    """Painting steps of a shape, in order. Raises ValueError for an unknown shape."""
    match shape:
        case "circle":
            yield _disc(0, 0, 0.9), True
        case "square":
            yield _box(-0.78, -0.78, 0.78, 0.78), True
        case "triangle":
            yield [(0, -0.95), (0.95, 0.75), (-0.95, 0.75)], True
        case "star":
            yield _star(), True
        case "heart":
            yield _heart(), True
        case "plus":
            yield _box(-0.32, -0.9, 0.32, 0.9), True
            yield _box(-0.9, -0.32, 0.9, 0.32), True
        case "moon":
            yield _disc(0, 0, 0.9), True
            yield _disc(0.42, -0.1, 0.72), False
        case "diamond":
            yield [(0, -1), (0.62, 0), (0, 1), (-0.62, 0)], True
        case "ring":
            yield _disc(0, 0, 0.92), True
            yield _disc(0, 0, 0.52), False
        case "arrow":
            yield _box(-0.95, -0.25, 0.1, 0.25), True
            yield [(0.1, -0.7), (0.95, 0), (0.1, 0.7)], True
        case "house":
            yield [(-0.95, -0.1), (0, -0.95), (0.95, -0.1)], True
            yield _box(-0.7, -0.1, 0.7, 0.85), True
            yield _box(-0.18, 0.25, 0.18, 0.85), False
        case "tree":
            yield _tree(), True
        case "hazard":
            yield [(0, -1), (1, 0.8), (-1, 0.8)], True
            yield [(0, -0.58), (0.66, 0.6), (-0.66, 0.6)], False
            yield [(-0.13, -0.25), (0.13, -0.25), (0.09, 0.2), (-0.09, 0.2)], True
            yield _disc(0, 0.42, 0.13), True
        case "banner":
            yield _box(-0.9, -0.95, -0.7, 0.98), True
            for top in (-0.9, -0.45, 0.0):
                yield _box(-0.7, top, 0.9, top + 0.24), True
        case "target":
            for radius, filled in ((0.98, True), (0.74, False), (0.52, True), (0.28, False)):
                yield _disc(0, 0, radius), filled
            yield _disc(0, 0, 0.14), True
        case "bolt":
            left = [(0.15, -1), (-0.62, 0.15), (-0.08, 0.15), (-0.3, 1)]
            yield [*left, (0.62, -0.25), (0.05, -0.25), (0.5, -1)], True
        case _:
            raise ValueError(f"unknown shape {shape!r}")
