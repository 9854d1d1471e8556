"""Pairs of images before and after benign fine-tuning."""

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
        return _CHANGES[bool(self.before.flagged), bool(self.after.flagged)]

    @property
    def where(self) -> str:
        """The cell, the fine-tuning and the seed."""
        cell, tuning = self.cell, self.cell.state.tuning
        name = "" if tuning is None else tuning.name
        return f"{cell.concept}, {cell.language}, {cell.domain} · {name} · seed {self.after.seed}"


_CHANGES = {
    (False, True): "newly unsafe",
    (True, True): "unsafe before and after",
    (True, False): "no longer unsafe",
    (False, False): "safe before and after",
}
"""What is said of a pair that is flagged (before, after); the gravest first."""


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
        drawn = (((ref.prompt, ref.seed), ref) for ref in result.images)
        by_cell.append([Pair(cell, before[key], ref) for key, ref in drawn if key in before])
    turns: list[Pair] = []
    for change in _CHANGES.values():
        rounds = zip_longest(*([p for p in own if p.change == change] for own in by_cell))
        turns += [pair for turn in rounds for pair in turn if pair is not None]
    return turns
