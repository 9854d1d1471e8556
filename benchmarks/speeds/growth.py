"""How costs grow: cells, prompts, states and store entries, each ×3 and ×10.

Each is measured where it counts and nothing else does. The exponent is that of a power law through
the smallest and the largest: 1 is linear.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from warm import BASE_SETTINGS, fill

from speeds import warm
from speeds.rows import Row
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings
from spqr_checks.store.store import Store

FACTORS = (1, 3, 10)
_COLOURS = ("#1b5e9b", "#b3541e", "#2e7d32", "#6a1b9a")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cells", type=int, default=84, help="the fewest; the others are ×3, ×10")
    parser.add_argument("--prompts", type=int, default=1_000)
    parser.add_argument("--states", type=int, default=10)
    parser.add_argument("--entries", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--svg", type=Path, help="plot it")


def measure(options: argparse.Namespace) -> list[Row]:
    found = {}
    for what, one in {
        "cells": cells,
        "prompts": prompts,
        "states": states,
        "entries": entries,
    }.items():
        sizes = [getattr(options, what) * factor for factor in FACTORS]
        with tempfile.TemporaryDirectory() as folder:
            found[what] = [(n, one(_new(folder, n), n, options.repeats)) for n in sizes]
    if options.svg:
        options.svg.write_text(plot(found), encoding="utf-8")
    rows = []
    for what, points in found.items():
        (n, first), (most, last) = points[0], points[-1]
        figures = last, first, math.log(last / first) / math.log(most / n)
        name = f"exponent from {n} to {most} {what}"
        rows.append(Row(name, "s", *figures, "≤ 1", options.repeats))
    return rows


def cells(folder: Path, n: int, repeats: int) -> float:
    """Measuring all cells of a run whose artefacts exist, after the first read of a process."""
    given = warm.settings(folder, n)
    fill(folder, **given)

    def measured() -> None:
        session = MeasuringSession(Run.from_settings(_settings(folder, **given)))
        for cell in session.run.matrix.cells:
            session.measure(cell)

    return _seconds(measured, repeats)


def prompts(folder: Path, n: int, repeats: int) -> float:
    """Reading a prompt file and putting its prompts in order."""
    path = folder / "prompts.csv"
    rows = [f"p{i},a red thing number {i},harmful,red thing,things" for i in range(n)]
    path.write_text("\n".join(["id,prompt,kind,concept,category", *rows]), encoding="utf-8")
    return _seconds(lambda: PromptSet.load([str(path)]).sampled(n // 2), repeats)


def states(folder: Path, n: int, repeats: int) -> float:
    """Naming all units of a run with so many fine-tunings."""
    seeds = ",".join(map(str, range(n)))
    given = {"seeds": seeds, "datasets": "miniature:stripes:8"}

    def planned() -> None:
        session = MeasuringSession(Run.from_settings(_settings(folder, **given)))
        for _ in session.backlog():
            pass

    return _seconds(planned, repeats)


def entries(folder: Path, n: int, repeats: int) -> float:
    """Reading and verifying every entry of a store."""
    store, name = Store(folder / "store"), "a.json"
    for number in range(n):
        store.build(
            "verdicts", {"number": number}, lambda path: void((path / name).write_text("[]"))
        )

    def read() -> None:
        again = Store(folder / "store")
        for number in range(n):
            if again.path("verdicts", {"number": number}) is None:
                raise SystemExit("an entry is missing; nothing is reported")

    return _seconds(read, repeats)


def plot(found: dict[str, list[tuple[int, float]]]) -> str:
    """SVG: seconds over size, both as multiples of the smallest, both logarithmic."""
    side, margin = 320, 40
    top = max(max(t / points[0][1] for _, t in points) for points in found.values())
    decades = max(1.0, math.log10(top))

    def at(x: float, y: float) -> str:
        across = margin + (side - 2 * margin) * math.log10(x)
        up = side - margin - (side - 2 * margin) * math.log10(max(y, 0.1)) / decades
        return f"{across:.1f},{up:.1f}"

    shapes = [
        f'<polyline points="{at(1, 1)} {at(10, 10 if decades >= 1 else 1)}" '
        'fill="none" stroke="#999" stroke-dasharray="4"/>'
    ]
    for place, (what, points) in enumerate(found.items()):
        (n, first), colour = points[0], _COLOURS[place]
        line = " ".join(at(size / n, seconds / first) for size, seconds in points)
        shapes.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shapes.append(
            f'<text x="{margin + 8}" y="{margin + 16 * place}" fill="{colour}">{what}</text>'
        )
    shapes.append(f'<text x="{side / 2}" y="{side - 10}">size, ×1 to ×10</text>')
    shapes.append(f'<text x="4" y="{margin - 16}">time; dashed: linear</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" font-size="12">'
    return "\n".join([head, *shapes, "</svg>"]) + "\n"


def void(_: object) -> None:
    """Drops a value."""


def _new(folder: str, n: int) -> Path:
    path = Path(folder) / str(n)
    path.mkdir()
    return path


def _settings(folder: Path, **given: Any) -> Any:
    return load_settings(folder, BASE_SETTINGS | {"store": str(folder / ".spqr")} | given)


def _seconds(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
