"""Contact sheets of a cell's images: which go on one, captions, what is not judged safe blurred."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from spqr_checks.errors import UserError
from spqr_checks.reports.text import one_line
from spqr_checks.scoring.cell_result import CellResult, ImageRef
from spqr_checks.scoring.scorecard import Scorecard

TILE = 192
"""Side of a picture on the sheet, in pixels."""
SHOWN, COLUMNS = 24, 6
_GAP, _LEADING, _POINTS, _PROMPT_LINES = 12, 15, 12, 3
Judged = Callable[[ImageRef], ImageRef]
_INK, _PAPER, _RED = (32, 32, 32), (255, 255, 255), (176, 0, 32)


def grid(
    refs: Sequence[ImageRef], store_root: Path, columns: int, blur_flagged: bool = True
) -> bytes:
    """A PNG of the images, ``columns`` in a row, numbered from 1 in the given order.

    Args:
        refs: the images, at least one.
        store_root: the folder that their paths are relative to.
        columns: pictures in a row, at least one.
        blur_flagged: whether images that are flagged, or that no judge has looked at, are made
            unrecognisable (for every reader who has not asked to see them).

    Raises:
        UserError: an image is missing, unreadable or outside the store. A sheet is whole or
            it is not drawn, because a blank picture reads as "nothing unsafe here".
        ValueError: no images, or no columns.
    """
    if not refs or columns < 1:
        raise ValueError("a sheet needs at least one image and one column")
    columns = min(columns, len(refs))
    rows = math.ceil(len(refs) / columns)
    caption_height = _LEADING * (_PROMPT_LINES + 1)
    width = columns * (TILE + _GAP) + _GAP
    height = rows * (TILE + caption_height + _GAP) + _GAP
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, ref in enumerate(refs):
        row, column = divmod(index, columns)
        left = _GAP + column * (TILE + _GAP)
        top = _GAP + row * (TILE + caption_height + _GAP)
        picture = open_image(ref, store_root)
        if blur_flagged and is_veiled(ref):
            picture = blur(picture)
        tile = _fit(picture)
        canvas.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
        colour = _RED if ref.flagged else _INK
        if ref.flagged:
            frame = (left - 3, top - 3, left + TILE + 2, top + TILE + 2)
            draw.rectangle(frame, outline=_RED, width=3)
        for number, line in enumerate(caption(ref, index + 1)):
            place = (left, top + TILE + 3 + number * _LEADING)
            draw.text(place, line, fill=colour, font=_font())
    buffer = BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()


def tile(ref: ImageRef, store_root: Path) -> bytes:
    """A PNG of one image as it is on a sheet, blurred where `is_veiled`; raises as `grid`."""
    picture = open_image(ref, store_root)
    buffer = BytesIO()
    _fit(blur(picture) if is_veiled(ref) else picture).save(buffer, format="PNG")
    return buffer.getvalue()


def is_veiled(ref: ImageRef) -> bool:
    """Whether nobody should see the image who has not asked to: all but those judged safe."""
    return ref.flagged is not False


def flag_word(ref: ImageRef) -> str:
    """What a judge says of the image, where that is not that it is safe."""
    return {True: "flagged", None: "not judged", False: ""}[ref.flagged]


def judged_everywhere(*cards: Scorecard) -> Judged:
    """What all cells of these scorecards together say of an image.

    One that any judge flagged is flagged wherever it is shown, and so is its twin, the same prompt
    and seed of the same state drawn for another concept; one that no cell judged stays unjudged.
    """
    shown = [
        (ref, (number, result.cell.state, result.cell.attack, ref.prompt, ref.seed))
        for number, card in enumerate(cards)
        for result in (*card.cells, *(own.result for own in card.own))
        for ref in result.images
    ]
    flagged = {key for ref, key in shown if ref.flagged}
    known: dict[str, bool] = {}
    for ref, key in shown:
        if key in flagged or ref.flagged is not None:
            known[ref.path] = known.get(ref.path, False) or key in flagged
    return lambda ref: replace(ref, flagged=known.get(ref.path, ref.flagged))


def open_image(ref: ImageRef, store_root: Path) -> Image.Image:
    """The RGB image behind a reference; raises UserError if it is missing or unreadable."""
    path = locate(ref, store_root)
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"The image {one_line(ref.path)} in the store {store_root} cannot be read "
            f"({one_line(str(error))}).\nDelete it and run the check again: it is drawn anew."
        ) from error


def locate(ref: ImageRef, store_root: Path) -> Path:
    """Where the image lies; raises UserError if it is missing or outside the store."""
    root = store_root.resolve()
    path = (root / ref.path).resolve()
    if not path.is_relative_to(root):
        raise UserError(
            f"The scorecard names the image {one_line(ref.path)}, which is outside the store "
            f"{store_root}.\nGive the store that the scorecard was made with."
        )
    if not path.is_file():
        raise UserError(
            f"The image {one_line(ref.path)} is missing in the store {store_root}.\n"
            "Give the store that the scorecard was made with, or run the check again."
        )
    return path


def blur(image: Image.Image) -> Image.Image:
    """The image with its shapes gone: only broad patches of colour stay.

    The radius follows the image's size, so that a picture of 32 pixels is as unrecognisable,
    scaled up, as one of 512; a border of the image's mean colour keeps edges from being repeated.
    """
    side = max(image.size)
    mean = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    padded = Image.new("RGB", (image.width + 2 * side, image.height + 2 * side), mean)
    padded.paste(image, (side, side))
    soft = padded.filter(ImageFilter.GaussianBlur(side / 3))
    return soft.crop((side, side, side + image.width, side + image.height))


def caption(ref: ImageRef, number: int) -> list[str]:
    """Lines below a picture: number, seed and verdict, then as much prompt as fits.

    The built-in font has no letters beyond ASCII. Accents are dropped where the rest can be
    drawn; a prompt in another script is replaced by a hint to the numbered list of prompts.
    """
    head = f"{number} · seed {ref.seed}" + (f" · {word}" if (word := flag_word(ref)) else "")
    text = drawable(ref.prompt)
    prompt = text if text is not None else f"(prompt {number}: see the list)"
    return [head, *_wrap(prompt, _PROMPT_LINES)]


def drawable(prompt: str) -> str | None:
    """The prompt as the font can draw it, None if letters would be lost."""
    line = one_line(prompt)
    if _has_glyphs(line):
        return line
    bare = "".join(c for c in unicodedata.normalize("NFKD", line) if not unicodedata.combining(c))
    return bare if _has_glyphs(bare) else None


def _wrap(text: str, lines: int) -> list[str]:
    """Break at spaces (in words where one is too long) to the tile's width; cut what is over."""
    font, wrapped = _font(), [""]
    for word in text.split(" "):
        joined = f"{wrapped[-1]} {word}".strip()
        if font.getlength(joined) <= TILE:
            wrapped[-1] = joined
            continue
        if wrapped[-1]:
            wrapped.append("")
        for char in word:
            if font.getlength(wrapped[-1] + char) > TILE:
                wrapped.append("")
            wrapped[-1] += char
    if len(wrapped) > lines:
        last = wrapped[lines - 1]
        while last and font.getlength(last + "…") > TILE:
            last = last[:-1]
        wrapped = [*wrapped[: lines - 1], last + "…"]
    return wrapped


def _fit(image: Image.Image) -> Image.Image:
    """Scale to the tile: small images by whole pixels (nearest), large ones smoothly."""
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return image.resize(size, method)


def _has_glyphs(text: Iterable[str]) -> bool:
    return all(_has_glyph(char) for char in text)


@lru_cache(maxsize=4096)
def _has_glyph(char: str) -> bool:
    if char == " ":
        return True
    return _picture_of(char) != _picture_of("\U0010fffe")


def _picture_of(char: str) -> tuple[tuple[int, int], bytes]:
    mask = _font().getmask(char)
    return mask.size, bytes(mask)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_POINTS)


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
    few = len(images) <= SHOWN
    return list(images) if few else sorted(images, key=lambda ref: not ref.flagged)[:SHOWN]
