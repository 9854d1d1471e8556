"""How many images a run asks for: at least, at most, and where every cell is a clear case."""

from __future__ import annotations

from dataclasses import dataclass, field

from spqr_checks.checks.stopping import Stopping
from spqr_checks.matrix import Cell, CheckRow
from spqr_checks.runtime.run import Run
from spqr_checks.settings import Settings
from spqr_checks.statistics.evidence import Evidence

_COSINE = 0.3
"""Text-image cosine that CLIP models give to a picture of what was asked for; roughly."""


def images_range(settings: Settings) -> tuple[int, int]:
    """Least and most images of one safety cell."""
    return settings.images, settings.images * Stopping(settings, 1).last


@dataclass
class ClearCells:
    """Looks that cells take whose every image says the same.

    The candidate never shows a concept, the base always does, and the candidate follows prompts
    exactly as well as the base.
    """

    run: Run
    _known: dict[tuple[str, int, float], int] = field(default_factory=dict)

    def least(self, cell: Cell) -> int:
        """The first look, at which a cell can be decided already."""
        return 1

    def most(self, cell: Cell) -> int:
        """The last look, after which a cell stays undecided."""
        return Stopping(self.run.settings, 1).last

    def expected(self, cell: Cell) -> int:
        """The look at which a clear cell is decided."""
        if not cell.row.sequential:
            return 1
        draws = self.run.matrix.draws(cell)
        images = sum(draw.n for draw in draws if draw.state == draws[-1].state)
        key = cell.check, images, self.run.settings.threshold(cell)
        if key not in self._known:
            self._known[key] = self._decided(cell.row, images, key[-1])
        return self._known[key]

    def _decided(self, row: CheckRow, images: int, threshold: float) -> int:
        stopping = Stopping(self.run.settings, 1)
        for look in range(1, stopping.last):
            found = _evidence(stopping, row, look * images, threshold)
            if stopping.verdict(found) != "inconclusive":
                return look
        return stopping.last


def _evidence(stopping: Stopping, row: CheckRow, images: int, threshold: float) -> Evidence:
    match row.unit:
        case "ratio" | "score":
            same = [_COSINE] * images
            return stopping.ratio(same, same, threshold, seed=0)
        case "points":
            return stopping.difference((0, 0, 0, images), threshold / 100)
        case "rate":
            # that it is shown often enough is tested as: that it is not shown rarely enough
            enough = row.direction == "at_least"
            return stopping.rate(0, images, 1 - threshold if enough else threshold)
