"""What a measure found, as a line of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure of ours, and the same of what people do otherwise.

    Attributes:
        ours, beside: in ``unit``; ``beside`` is None where nothing stands beside it.
        ratio: of the two as the goal reads it; computed in one run on one machine.
        goal: what must be reached, for people.
        n: how often it was measured; medians are shown.
    """

    measure: str
    unit: str
    ours: float
    beside: float | None = None
    ratio: float | None = None
    goal: str = ""
    n: int = 1


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| measure | unit | ours | beside | ratio | goal | n |",
        "|---|---|---:|---:|---:|---|---:|",
    ]
    for row in rows:
        figures = [_shown(value) for value in (row.ours, row.beside, row.ratio)]
        cells = [row.measure, row.unit, *figures, row.goal, str(row.n)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
