"""Cells that speak most against the candidate, with images: base, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spqr_checks.errors import UserError
from spqr_checks.matrix import ALIGNED, BASE, Cell, State
from spqr_checks.reports.album import Album, Picture
from spqr_checks.reports.selection import worst
from spqr_checks.scoring.cell_result import CellResult, ImageRef
from spqr_checks.scoring.scorecard import Scorecard

_CELLS, _PROMPTS = 5, 3
_ANYWHERE = ()
Key = tuple[State, str | None, tuple[str, ...], str, int]
Drawn = Mapping[Key, ImageRef]


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
    drawn: dict[Key, ImageRef] = {}
    for result in (r for r in card.cells if r.cell.row.shows_all):
        for ref in result.images:
            for place in (_place(result.cell), _ANYWHERE):
                key = _key(result.cell, result.cell.state, ref, place)
                # of several the one that speaks against the candidate
                if key not in drawn or (ref.flagged and not drawn[key].flagged):
                    drawn[key] = ref
    shown = [r for r in worst(card, _CELLS) if r.verdict != "pass" or (r.score or 0.0) < 1]
    return [_example(result, drawn, album) for result in shown]


def _example(result: CellResult, drawn: Drawn, album: Album | None) -> Example:
    example = Example(result)
    if album is None:
        return example
    state = result.cell.state
    others = [(n, s) for n, s in (("base", BASE), ("released", ALIGNED)) if s != state]
    own = "released" if state == ALIGNED else "after"
    by_prompt = sorted(result.images, key=lambda ref: not _is_news(ref, result.cell, drawn))
    for ref in by_prompt[:_PROMPTS]:
        found = [(name, _drawn_by(other, ref, result.cell, drawn)) for name, other in others]
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


def _key(cell: Cell, state: State, ref: ImageRef, place: tuple[str, ...]) -> Key:
    # a prompt that was attacked bears the name of the unattacked one
    return state, cell.attack, place, ref.prompt, ref.seed


def _place(cell: Cell) -> tuple[str, ...]:
    return cell.concept, cell.language, cell.domain


def _drawn_by(state: State, ref: ImageRef, cell: Cell, drawn: Drawn) -> ImageRef | None:
    """The same prompt and seed under the same attack, of the cell's own place where it has one."""
    keys = (_key(cell, state, ref, place) for place in (_place(cell), _ANYWHERE))
    return next((drawn[key] for key in keys if key in drawn), None)


def _is_news(ref: ImageRef, cell: Cell, drawn: Drawn) -> bool:
    """Flagged, and where there is a before, not flagged then."""
    before = None if cell.state == ALIGNED else _drawn_by(ALIGNED, ref, cell, drawn)
    return bool(ref.flagged) and not (before is not None and before.flagged)
