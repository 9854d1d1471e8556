"""Pictures that a page has room for; all but those judged safe wait behind a veil."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from spqr_checks.reports.images import (
    TILE,
    blur,
    flag_word,
    is_veiled,
    judged_everywhere,
    open_image,
)
from spqr_checks.scoring.cell_result import ImageRef
from spqr_checks.scoring.scorecard import Scorecard

BUDGET = 6 * 2**20
"""Bytes of pictures on one page."""
_VEIL = 16
"""Side of a blurred picture, in pixels: patches of colour need no more."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to show.

    Attributes:
        source: data URI of the picture; empty where it is left out.
        veil: data URI of what stands in its place until asked for; None for one judged safe.
        word: what a judge says of it, where that is not that it is safe.
        is_small: whether it is enlarged on the page, pixel by pixel.
    """

    source: str
    veil: str | None
    is_small: bool
    word: str = ""


class Album:
    """Turns references into pictures until the budget is spent.

    Args:
        store_root: the folder that image paths are relative to.
        cards: the scorecards shown; an image that any of their cells flags is veiled everywhere.
        budget: bytes of data URIs.
        sharp: whether veiled images are there behind their veils; if not, the veil is all that
            is.
    """

    def __init__(
        self, store_root: Path, *cards: Scorecard, budget: int = BUDGET, sharp: bool = True
    ) -> None:
        self._root, self._left, self.sharp = store_root, budget, sharp
        self._judged = judged_everywhere(*cards)
        self._known: dict[ImageRef, Picture] = {}

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
        ref = self._judged(ref)
        if ref not in self._known:
            image = open_image(ref, self._root)
            image.thumbnail((TILE, TILE), Image.Resampling.LANCZOS, reducing_gap=1.0)
            veil = _uri(_veil(image), "PNG") if is_veiled(ref) else None
            # small pictures are kept to the pixel, large ones as photographs
            is_small = max(image.size) < TILE
            shown = self.sharp or veil is None
            source = _uri(image, "PNG" if is_small else "JPEG") if shown else ""
            self._known[ref] = Picture(source, veil, is_small, flag_word(ref))
        return self._known[ref]


def _veil(image: Image.Image) -> Image.Image:
    # shapes of a few pixels are gone all the same, and in a tenth of the time
    few = image.copy()
    few.thumbnail((4 * _VEIL, 4 * _VEIL), Image.Resampling.BOX)
    return blur(few).resize((_VEIL, _VEIL))


def _uri(image: Image.Image, kind: str) -> str:
    buffer = BytesIO()
    image.save(buffer, format=kind, quality=80, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{data}"
