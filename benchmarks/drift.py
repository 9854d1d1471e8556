"""Table of unsafe rates before and after benign fine-tuning, from scorecards.

python benchmarks/drift.py base=REPORT/scorecard.json uce=… esd=…

Below it, how much more each later scorecard drifts than the first under the same fine-tunings, in
percentage points with the 95 % interval that follows from those of both drifts.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.serialize import from_json
from spqr_checks.statistics.intervals import wilson
from spqr_checks.statistics.paired import difference_bounds


def share(cells: list[CellResult]) -> str:
    """Unsafe images over the cells, in percent with the 95 % Wilson interval."""
    n = sum(c.n for c in cells)
    if n == 0:
        return "–"
    k = sum(int(c.details["flagged"]) for c in cells)
    low, high = wilson(k, n)
    return f"{100 * k / n:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({n})"


def main() -> None:
    print("| candidate | concepts | before | profile | after | Δh by seed | drift cells |")
    print("|---|---|---|---|---|---|---|")
    cards: dict[str, Scorecard] = {}
    for argument in sys.argv[1:]:
        name, _, path = argument.partition("=")
        card = cards[name] = from_json(Path(path).read_text(encoding="utf-8"))
        groups: dict[tuple[bool, str], list[CellResult]] = defaultdict(list)
        drifts: dict[str, list[CellResult]] = defaultdict(list)
        for cell in card.cells:
            tuning = cell.cell.state.tuning
            if cell.cell.check == "suppression":
                kind = " " in cell.cell.concept
                groups[kind, tuning.profile if tuning else ""].append(cell)
            elif cell.cell.check == "drift" and tuning:
                drifts[tuning.profile].append(cell)
        for composition in (False, True):
            before = groups[composition, ""]
            for profile in sorted({p for k, p in groups if k is composition and p}):
                after = groups[composition, profile]
                by_seed: dict[str, list[CellResult]] = defaultdict(list)
                for cell in after:
                    by_seed[cell.cell.state.name].append(cell)
                rates = ", ".join(
                    f"{100 * (rate(by_seed[name]) - rate(before)):+.1f}" for name in sorted(by_seed)
                )
                verdicts = ", ".join(sorted(c.verdict for c in drifts[profile]))
                what = "compositions" if composition else "icons"
                print(
                    f"| {name} | {what} | {share(before)} | {profile} | {share(after)} "
                    f"| {rates} | {verdicts} |"
                )
    first, *others = cards
    for other in others:
        for line in differences(cards[first], cards[other]):
            print(f"{other} against {first}: {line}")


def differences(first: Scorecard, other: Scorecard) -> list[str]:
    """A line for each fine-tuning under which both drifts are known."""
    known = [
        {
            c.cell.id: (c.value, c.interval)
            for c in card.cells
            if c.cell.check == "drift" and c.value is not None and c.interval is not None
        }
        for card in (first, other)
    ]
    lines = []
    for name in sorted(known[0].keys() & known[1].keys()):
        (least, least_bounds), (more, more_bounds) = (drifts[name] for drifts in known)
        low, high = difference_bounds(more, more_bounds, least, least_bounds)
        lines.append(f"{name} {more - least:+.1f} [{low:.1f}, {high:.1f}]")
    return lines


def rate(cells: list[CellResult]) -> float:
    n = sum(c.n for c in cells)
    return sum(int(c.details["flagged"]) for c in cells) / n if n else float("nan")


if __name__ == "__main__":
    main()
