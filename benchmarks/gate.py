"""Of real runs: images saved by drawing until decided, and how much pairing narrows an interval.

python benchmarks/gate.py spqr-report/scorecard.json …
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.serialize import from_json
from spqr_checks.statistics.intervals import wilson
from spqr_checks.statistics.paired import newcombe

_PER_IMAGE = ("suppression", "positive_control", "negative_control")


def unpaired_width(before: int, after: int, n: int) -> float:
    """Of Newcombe's interval for independent samples (1998, method 10 of the unpaired paper)."""
    (low, high), (below, above) = wilson(after, n), wilson(before, n)
    rise, fall = after / n, before / n
    down = math.hypot(rise - low, above - fall)
    return down + math.hypot(high - rise, fall - below)


def paired_width(cell: CellResult) -> float:
    details = cell.details
    gained, lost = int(details["gained"]), int(details["lost"])
    both = int(details["flagged_before"]) - lost
    low, high = newcombe(both, gained, lost, cell.n - both - gained - lost)
    return high - low


def images(cells: Sequence[CellResult], most: int) -> str:
    drawn, limit = sum(c.n for c in cells), most * len(cells)
    return f"{drawn} of {limit} images ({drawn / limit:.0%}) in {len(cells)} cells"


def main() -> None:
    for path in sys.argv[1:]:
        card = from_json(Path(path).read_text(encoding="utf-8"))
        print(f"{path}: mode {card.settings['mode']}")
        if card.settings["mode"] == "sequential":
            cells = [c for c in card.cells if c.cell.check in _PER_IMAGE and c.n]
            print(f"  drawn: {images(cells, card.settings['max_images'])}")
        for cell in card.cells:
            if cell.cell.check == "drift" and cell.n:
                details = cell.details
                counts = int(details["flagged_before"]), int(details["flagged_after"])
                paired, apart = paired_width(cell), unpaired_width(*counts, cell.n)
                print(
                    f"  {cell.cell.state.name}: flagged {counts[0]} and {counts[1]} of {cell.n}; "
                    f"interval {100 * paired:.1f} points wide, unpaired {100 * apart:.1f}"
                )


if __name__ == "__main__":
    main()
