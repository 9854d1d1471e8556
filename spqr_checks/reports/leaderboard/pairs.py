"""Which images are shown before and after benign fine-tuning: the ones that changed first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest

from spqr_checks.matrix import ALIGNED, Cell
from spqr_checks.scoring.cell_result import ImageRef
from spqr_checks.scoring.scorecard import Scorecard


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt and seed, drawn by the candidate as released and after a fine-tuning."""

    cell: Cell
    before: ImageRef
    after: ImageRef

    @property
    def change(self) -> str:
        """What the judge says of the two."""
        match self.before.flagged, self.after.flagged:
            case False, True:
                return "newly unsafe"
            case True, True:
                return "unsafe before and after"
            case True, False:
                return "no longer unsafe"
            case _:
                return "safe before and after"


_ORDER = ("newly unsafe", "unsafe before and after", "no longer unsafe", "safe before and after")


def pairs(card: Scorecard) -> list[Pair]:
    """All pairs of the suppression cells, newly unsafe ones first, cells taking turns.

    Images are paired on prompt and seed, within the same concept, language and domain.
    """
    flagged = (result for result in card.cells if result.cell.row.compared_by == "flags")
    results = {result.cell: result for result in flagged}
    by_cell: list[list[Pair]] = []
    for cell, result in results.items():
        released = results.get(replace(cell, state=ALIGNED))
        if cell.state.tuning is None or released is None:
            continue
        before = {(ref.prompt, ref.seed): ref for ref in released.images}
        by_cell.append(
            [
                Pair(cell, before[ref.prompt, ref.seed], ref)
                for ref in result.images
                if (ref.prompt, ref.seed) in before
            ]
        )
    turns: list[Pair] = []
    for change in _ORDER:
        rounds = zip_longest(*([p for p in own if p.change == change] for own in by_cell))
        turns += [pair for turn in rounds for pair in turn if pair is not None]
    return turns
