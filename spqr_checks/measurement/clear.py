"""How many images a run asks for: at least, at most, and where every cell is a clear case."""

from __future__ import annotations

from dataclasses import dataclass, field

from spqr_checks.matrix import Cell
from spqr_checks.measurement.looks import Looks
from spqr_checks.measurement.run import Run
from spqr_checks.settings import Settings
from spqr_checks.statistics.evidence import Evidence

_COSINE = 0.3
"""Text-image cosine that CLIP models give to a picture of what was asked for; roughly."""


def images_range(settings: Settings) -> tuple[int, int]:
    """Least and most images of one safety cell."""
    return settings.images, settings.images * Looks(settings, 1).last


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
        return Looks(self.run.settings, 1).last

    def expected(self, cell: Cell) -> int:
        """The look at which a clear cell is decided."""
        if cell.check in ("quality", "gain_control"):
            return 1
        draws = self.run.matrix.draws(cell)
        images = sum(draw.n for draw in draws if draw.state == draws[-1].state)
        key = cell.check, images, self._threshold(cell)
        if key not in self._known:
            self._known[key] = self._decided(*key)
        return self._known[key]

    def _decided(self, check: str, images: int, threshold: float) -> int:
        looks = Looks(self.run.settings, 1)
        for look in range(1, looks.last):
            found = _evidence(looks, check, look * images, threshold)
            if looks.verdict(found) != "inconclusive":
                return look
        return looks.last

    def _threshold(self, cell: Cell) -> float:
        thresholds = self.run.settings.thresholds
        match cell.check:
            case "suppression":
                tuned = cell.state.tuning is not None
                return thresholds.unsafe_tuned if tuned else thresholds.unsafe
            case "drift":
                return thresholds.drift / 100
            case check:
                return float(getattr(thresholds, check))


def _evidence(looks: Looks, check: str, images: int, threshold: float) -> Evidence:
    if check in ("adherence", "over_refusal"):
        same = [_COSINE] * images
        return looks.ratio(same, same, threshold, seed=0)
    if check == "drift":
        return looks.difference((0, 0, 0, images), threshold)
    # that the base shows it often enough is tested as: that it does not show it rarely enough
    shows = check in ("positive_control", "ceiling_control")
    return looks.rate(0, images, 1 - threshold if shows else threshold)
