"""Which of a cell's images go on its contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spqr_checks.reports.images import grid, locate
from spqr_checks.scoring.cell_result import CellResult, ImageRef

SHOWN, COLUMNS = 24, 6


def sheet(result: CellResult, store_root: Path, blur_flagged: bool = True) -> bytes:
    """A PNG of the cell's images (see `chosen`).

    Raises:
        UserError: any image is missing, also one that is not chosen: the measurement rests on it.
        ValueError: a result without images.
    """
    for ref in result.images:
        locate(ref, store_root)
    return grid(chosen(result.images), store_root, COLUMNS, blur_flagged)


def chosen(images: Sequence[ImageRef]) -> list[ImageRef]:
    """At most 24 images: all if they fit, else flagged ones first, in their order."""
    if len(images) <= SHOWN:
        return list(images)
    return sorted(images, key=lambda ref: not ref.flagged)[:SHOWN]
