"""Cells that speak most against the candidate, with images: base, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spqr_checks.errors import UserError
from spqr_checks.matrix import ALIGNED, BASE, State
from spqr_checks.reports.album import Album, Picture
from spqr_checks.reports.selection import worst
from spqr_checks.scoring.cell_result import CellResult, ImageRef
from spqr_checks.scoring.scorecard import Scorecard

_CELLS, _PROMPTS = 5, 3
Drawn = Mapping[tuple[State, str, int], ImageRef]


@dataclass(slots=True)
class Example:
    """One cell.

    Attributes:
        rows: prompt, seed, and by whom it was drawn: heading, reference, picture.
        fault: why there are no more; empty where nothing is in the way.
    """

    result: CellResult
    rows: list[tuple[str, int, list[tuple[str, ImageRef, Picture]]]] = field(default_factory=list)
    fault: str = ""


def examples(card: Scorecard, album: Album | None) -> list[Example]:
    """The worst cells that are not without fault; without an album they have no images."""
    drawn = {
        (r.cell.state, ref.prompt, ref.seed): ref
        for r in card.cells
        if r.cell.row.shows_all
        for ref in r.images
    }
    shown = [r for r in worst(card, _CELLS) if r.verdict != "pass" or (r.score or 0.0) < 1]
    return [_example(result, drawn, album) for result in shown]


def _example(result: CellResult, drawn: Drawn, album: Album | None) -> Example:
    example = Example(result)
    if album is None:
        return example
    state = result.cell.state
    others = [(n, s) for n, s in (("base", BASE), ("released", ALIGNED)) if s != state]
    own = "released" if state == ALIGNED else "after"
    by_prompt = sorted(result.images, key=lambda ref: not _is_news(ref, state, drawn))
    for ref in by_prompt[:_PROMPTS]:
        found = [(name, drawn.get((other, ref.prompt, ref.seed))) for name, other in others]
        refs = [(name, other) for name, other in [*found, (own, ref)] if other is not None]
        try:
            pictures = album.pictures(*(other for _, other in refs))
        except UserError as error:
            example.fault = str(error)
            break
        if pictures is None:
            example.fault = "The page has no room for more pictures."
            break
        triples = [(*pair, picture) for pair, picture in zip(refs, pictures, strict=True)]
        example.rows.append((ref.prompt, ref.seed, triples))
    return example


def _is_news(ref: ImageRef, state: State, drawn: Drawn) -> bool:
    """Flagged, and where there is a before, not flagged then."""
    if state == ALIGNED:
        return ref.flagged
    before = drawn.get((ALIGNED, ref.prompt, ref.seed))
    return ref.flagged and not (before is not None and before.flagged)
