"""Of the same candidate measured on fresh images again and again: do the verdicts stay the same?

python benchmarks/repeat.py [--unsafe RATE] runs/*/scorecard.json

Beside each cell stands what a gate on the mean would say of the first images of the same runs
(unsafe rate at most the threshold): its flips are what verdicts with error bounds are for. With
--unsafe, both hold the first look's images against another threshold, as a run with max_images =
images would.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spqr_checks.checks.stopping import Stopping
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.serialize import from_json
from spqr_checks.settings import load_settings
from spqr_checks.statistics.intervals import wilson


def flips(verdicts: Sequence[str]) -> float:
    """Share of pairs of runs that do not agree."""
    n = len(verdicts)
    same = sum(count * (count - 1) for count in Counter(verdicts).values())
    return 1 - same / (n * (n - 1))


def contradictions(verdicts: Sequence[str]) -> float:
    """Share of pairs of runs of which one says pass and the other fail."""
    counts, n = Counter(verdicts), len(verdicts)
    return 2 * counts["pass"] * counts["fail"] / (n * (n - 1))


def by_mean(cell: CellResult, first: int) -> str:
    flagged = sum(image.flagged for image in cell.images[:first])
    return "pass" if flagged / first <= cell.threshold else "fail"


def held_against(cell: CellResult, first: int, threshold: float, card: Scorecard) -> CellResult:
    """The cell after its first look, with another threshold, decided as the run decides."""
    images = cell.images[:first]
    flagged = [image.flagged for image in images]
    settings = load_settings(Path.cwd(), {"mode": "sequential"}, measures=False)
    stopping = Stopping(settings, sum(not each.cell.is_control for each in card.cells))
    verdict = stopping.verdict(stopping.rate(flagged, images, threshold))
    return replace(cell, verdict=verdict, threshold=threshold, n=first, images=images)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--unsafe", type=float)
    parser.add_argument("scorecards", nargs="+", type=Path)
    given = parser.parse_args()
    cards = [from_json(path.read_text(encoding="utf-8")) for path in given.scorecards]
    look = min(card.settings["images"] for card in cards)
    runs: dict[str, list[CellResult]] = {}
    for card in cards:
        for cell in card.cells:
            if cell.cell.check == "suppression":
                one = cell if given.unsafe is None else held_against(cell, look, given.unsafe, card)
                runs.setdefault(cell.cell.id, []).append(one)
    header = ["cell", "unsafe in all runs, %", "threshold", "verdicts", "images a run"]
    header += ["flips", "pass against fail", f"mean of {look}: fail in", "its flips"]
    print(f"{len(cards)} runs\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    total = [0.0, 0.0, 0.0]
    for name, cells in sorted(runs.items(), key=lambda item: rate(item[1])[0]):
        verdicts = [cell.verdict for cell in cells]
        means = [by_mean(cell, look) for cell in cells]
        each = (flips(verdicts), contradictions(verdicts), flips(means))
        total = [a + b for a, b in zip(total, each, strict=True)]
        value, (low, high), n = rate(cells)
        counts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts).items())
        print(
            f"| {name} | {100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({n}) "
            f"| {cells[0].threshold:.0%} | {counts} | {n / len(cells):.0f} "
            f"| {each[0]:.0%} | {each[1]:.0%} | {means.count('fail')} | {each[2]:.0%} |"
        )
    mean = [value / len(runs) for value in total]
    print(f"\nover all cells: flips {mean[0]:.1%}, pass against fail {mean[1]:.1%}; ", end="")
    print(f"of the mean {mean[2]:.1%}")


def rate(cells: Sequence[CellResult]) -> tuple[float, tuple[float, float], int]:
    """Pooled over runs by their first look: later ones are drawn only where it was not clear."""
    first = min(cell.n for cell in cells)
    flagged = sum(image.flagged for cell in cells for image in cell.images[:first])
    n = first * len(cells)
    return flagged / n, wilson(flagged, n), n


if __name__ == "__main__":
    main()
