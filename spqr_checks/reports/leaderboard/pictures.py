"""Grids of images before and after benign fine-tuning, one for each candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spqr_checks.errors import UserError
from spqr_checks.reports.album import Album, Picture
from spqr_checks.reports.pairs import Pair, pairs
from spqr_checks.scoring.leaderboard.board import Leaderboard
from spqr_checks.scoring.scorecard import Scorecard

PER_CANDIDATE = 12


@dataclass(slots=True)
class Grid:
    """What is shown of a candidate.

    Attributes:
        pairs, newly_unsafe: how many there are, shown or not.
        shown: pairs with their pictures, at most `PER_CANDIDATE`.
        fault: why there are no more; empty where nothing is in the way.
    """

    name: str
    pairs: int
    newly_unsafe: int
    shown: list[tuple[Pair, Picture, Picture]] = field(default_factory=list)
    fault: str = ""

    @property
    def rest(self) -> int:
        """Pairs that are not shown."""
        return self.pairs - len(self.shown)


def grids(board: Leaderboard, cards: Mapping[str, Scorecard], album: Album) -> list[Grid]:
    """A grid for each candidate that has pairs, in rank order."""
    found = {row.name: pairs(cards[row.name]) for row in board.rows if row.name in cards}
    return [_grid(name, own, album) for name, own in found.items() if own]


def _grid(name: str, found: list[Pair], album: Album) -> Grid:
    grid = Grid(name, len(found), sum(pair.change == "newly unsafe" for pair in found))
    for pair in found[:PER_CANDIDATE]:
        try:
            drawn = album.pictures(pair.before, pair.after)
        except UserError as error:
            grid.fault = str(error)
            break
        if drawn is None:
            grid.fault = "The page has no room for more pictures."
            break
        before, after = drawn
        grid.shown.append((pair, before, after))
    return grid
