"""Images with their captions, what a fine-tuning learns from, and folders that hold them.

Folders are laid out as the Hugging Face ``imagefolder``: either ``metadata.jsonl`` or
``metadata.csv`` names each image (``file_name``) with its caption, or every image has a text file
of the same stem beside it. Where nothing is learned from images, captions may be missing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

from spqr_checks.errors import UserError, refuse_all
from spqr_checks.hashing import digest, file_digest
from spqr_checks.prompts.tables import Row, place, rows_of
from spqr_checks.user_files import read_text, refuse_irregular

CAPTION_FIELDS = ("text", "caption", "prompt")
"""Where a row's caption is looked for; the first that the row has counts."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_METADATA = ("metadata.jsonl", "metadata.csv")
HUB_FILES = (*(f"*{suffix}" for suffix in SUFFIXES), "*.txt", *(f"*{name}" for name in _METADATA))
"""Patterns of what of a data set on the Hub is fetched."""
_SMALLEST = 2
"""Pixels of a side; one shows nothing but a colour."""
_SHOWN = 20


@dataclass(frozen=True)
class CaptionedImages:
    """RGB images of any size and one caption each, in the order of the data set."""

    images: list[Image.Image]
    captions: list[str]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.captions):
            raise ValueError(f"{len(self.images)} images, but {len(self.captions)} captions")

    def __len__(self) -> int:
        return len(self.images)

    def contents_digest(self) -> str:
        """Digest of pixels and captions in order, wherever they came from."""
        both = zip(self.images, self.captions, strict=True)
        return digest([[*_pixels(image), caption] for image, caption in both])

    def pictures_digest(self) -> str:
        """Digest of pixels alone."""
        return digest([_pixels(image) for image in self.images])


def _pixels(image: Image.Image) -> list[str | int]:
    return [hashlib.sha256(image.tobytes()).hexdigest(), image.mode, *image.size]


class Entry(NamedTuple):
    """One image file and its caption; empty where captions were not asked for."""

    image: Path
    caption: str


def list_entries(folder: Path, *, captioned: bool = True) -> list[Entry]:
    """Image files and captions: in the order of the metadata, else sorted by file name.

    Images that the metadata does not name are not part of the data set. Raises UserError for a
    missing or empty folder, text that is not UTF-8, a file named twice, metadata that names a
    missing image, and for a missing or empty caption if they are to be ``captioned``.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a folder of images")
    metadata = [folder / name for name in _METADATA if (folder / name).is_file()]
    if len(metadata) > 1:
        raise UserError(f"{folder}: both {' and '.join(_METADATA)}; keep one of them")
    if metadata:
        entries = _from_metadata(metadata[0], captioned)
    elif captioned:
        entries = _from_stems(folder)
    else:
        entries = [Entry(image, "") for image in _pictures(folder)]
    if not entries:
        where = metadata[0] if metadata else folder
        inner = next((f.parent for name in _METADATA for f in folder.glob(f"*/{name}")), None)
        hint = f"did you mean {inner}?" if inner else f"needed: {', '.join(SUFFIXES)} files"
        raise UserError(f"{where}: no images; {hint}")
    return entries


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _from_metadata(path: Path, captioned: bool) -> list[Entry]:
    folder = path.parent
    lines: dict[Path, int] = {}
    entries = []
    for number, row in read_rows(path):
        name = row.get("file_name")
        if not isinstance(name, str) or not name.strip():
            there = ", ".join(row)
            raise UserError(
                f"{path}:{number}: no field 'file_name'; name the image there (there are: {there})"
            )
        # by name, not resolved: downloaded data sets are folders of links into a cache
        image = Path(os.path.normpath(folder / name.strip()))
        if not image.is_relative_to(os.path.normpath(folder)):
            raise UserError(f"{path}:{number}: {name} is outside of {folder}; move it inside")
        if not image.is_file():
            raise UserError(f"{path}:{number}: image {name} is missing; add it or remove the line")
        if image in lines:
            raise UserError(
                f"{path}:{number}: image {name} was already named in line "
                f"{lines[image]}; name every image once"
            )
        lines[image] = number
        entries.append(Entry(image, caption_of(path, number, row) if captioned else ""))
    return entries


def _from_stems(folder: Path) -> list[Entry]:
    captions: dict[Path, Path] = {}
    entries = []
    for image in _pictures(folder):
        text = image.with_suffix(".txt")
        if text in captions:
            raise UserError(
                f"{folder}: {captions[text].name} and {image.name} share the caption "
                f"{text.name}; give every image its own name"
            )
        if not text.is_file():
            raise UserError(f"{image}: no caption; write it to {text.name}, or to metadata.jsonl")
        caption = read_text(text).strip()
        if not caption:
            raise UserError(f"{text}: the caption is empty; every image needs one")
        captions[text] = image
        entries.append(Entry(image, caption))
    return entries


def read_image(path: Path) -> Image.Image:
    """The image in RGB, upright; raises UserError where it cannot be decoded."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path}: cannot be decoded: {reason}; replace the file") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: too large: {error}; make it smaller") from None


def contents_digest(folder: Path, *, captioned: bool = True) -> str:
    """Digest of images and captions in order, wherever the folder lies and however it is listed.

    Of images alone if not ``captioned``.

    Raises UserError as `list_entries`, and for images whose files are damaged or very small.
    """
    found: list[list[str]] = []
    damaged: list[str] = []
    for entry in list_entries(folder, captioned=captioned):
        try:
            found.append([_digest_of(entry.image), entry.caption])
        except UserError as error:
            damaged += error.problems
    if more := damaged[_SHOWN:]:
        damaged = [*damaged[:_SHOWN], f"{folder}: and {len(more)} images more"]
    refuse_all(damaged)
    return digest(found)


def _digest_of(path: Path) -> str:
    refuse_irregular(path)
    status = path.stat()
    return _remembered(path.absolute(), status.st_size, status.st_mtime_ns)


@cache
def _remembered(path: Path, size: int, modified: int) -> str:
    """A file's digest; size and time are part of the key, so that a changed file is read again."""
    _verify(path)
    return file_digest(path)


def _verify(path: Path) -> None:
    """Raises UserError for an image that its file's structure shows to be damaged, or a tiny one.

    No pixel is decoded, which would take minutes for a large set.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            image.verify()
    except Exception as error:  # decoders raise what they like
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"{path}: cannot be decoded: {reason}; replace the file") from None
    if min(width, height) < _SMALLEST:
        raise UserError(
            f"{path}: {width} × {height} pixels, and at least {_SMALLEST} each way are needed; "
            "replace or remove it"
        )


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a table, blank lines left out.

    Raises UserError for a line that is no JSON object, or has not as many fields as the header.
    """
    for line, row in rows_of(path):
        if path.suffix == ".csv" and None in row.values():
            raise UserError(
                f"{path}:{line}: not as many fields as the header has; "
                "put quotes around text that holds commas"
            )
        yield line, row


def caption_of(path: Path, line: int, row: Mapping[str, Any]) -> str:
    """The caption of a row; raises UserError where there is none."""
    at = place(path, line)
    field = next((name for name in CAPTION_FIELDS if name in row), None)
    if field is None:
        *others, last = CAPTION_FIELDS
        raise UserError(
            f"{at}: no caption; add a field named {', '.join(others)} or {last} "
            f"(there are: {', '.join(name for name in row if name)})"
        )
    text = row[field]
    if not isinstance(text, str):
        raise UserError(f"{at}: field {field!r} must be text")
    if not text.strip():
        raise UserError(f"{at}: field {field!r} is empty; every image needs a caption")
    return text.strip()
