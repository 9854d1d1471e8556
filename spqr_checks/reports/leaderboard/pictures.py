"""Pairs of images before and after benign fine-tuning, and the pictures a page has room for."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from spqr_checks.errors import UserError
from spqr_checks.matrix import ALIGNED, Cell
from spqr_checks.reports.images import TILE, blur, open_image
from spqr_checks.scoring.cell_result import ImageRef
from spqr_checks.scoring.leaderboard.board import Leaderboard
from spqr_checks.scoring.scorecard import Scorecard

PER_CANDIDATE = 12
BUDGET = 6 * 2**20
"""Bytes of pictures on one page."""
_VEIL = 16
"""Side of a blurred picture, in pixels: patches of colour need no more."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt and seed, drawn by the candidate as released and after a fine-tuning."""

    cell: Cell
    before: ImageRef
    after: ImageRef

    @property
    def change(self) -> str:
        """What the judge says of the two."""
        return _CHANGES[self.before.flagged, self.after.flagged]

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


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to show.

    Attributes:
        source: data URI of the picture.
        veil: data URI of what stands in its place until asked for; None for one not flagged.
        is_small: whether it is enlarged on the page, pixel by pixel.
    """

    source: str
    veil: str | None
    is_small: bool


class Album:
    """Turns references into pictures until the budget is spent.

    Args:
        store_root: the folder that image paths are relative to.
        budget: bytes of data URIs.
    """

    def __init__(self, store_root: Path, budget: int = BUDGET) -> None:
        self._root, self._left = store_root, budget
        self._known: dict[tuple[str, bool], Picture] = {}

    def pictures(self, *refs: ImageRef) -> list[Picture] | None:
        """The pictures of all these images, or None where they are too many bytes.

        Raises:
            UserError: an image is missing, unreadable or outside the store.
        """
        made = [self._picture(ref) for ref in refs]
        size = sum(len(p.source) + len(p.veil or "") for p in made)
        if size > self._left:
            return None
        self._left -= size
        return made

    def _picture(self, ref: ImageRef) -> Picture:
        key = ref.path, ref.flagged
        if key not in self._known:
            image = open_image(ref, self._root)
            image.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
            veil = _uri(blur(image).resize((_VEIL, _VEIL)), "PNG") if ref.flagged else None
            # small pictures are kept to the pixel, large ones as photographs
            is_small = max(image.size) < TILE
            self._known[key] = Picture(_uri(image, "PNG" if is_small else "JPEG"), veil, is_small)
        return self._known[key]


def _uri(image: Image.Image, kind: str) -> str:
    buffer = BytesIO()
    image.save(buffer, format=kind, quality=80, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{data}"


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
