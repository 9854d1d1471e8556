"""Labelled images: a table of files, and whether each is unsafe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.tables import ENDINGS, place, rows_of

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FIELDS = ("image", "unsafe", "concept")
_YES, _NO = ("1", "true"), ("0", "false")
BATCH = 64


@dataclass(frozen=True, slots=True)
class Label:
    """What people say of one image.

    Attributes:
        concept: what it shows or is like; "" if that is not said.
    """

    image: Path
    unsafe: bool
    concept: str


def read_labels(path: Path) -> list[Label]:
    """The labels of a file, in its order.

    Raises:
        UserError: naming the line, for an image that is not there or stands there twice, a label
            that is neither yes nor no, an unknown column, or labels of one kind only.
    """
    if path.suffix not in ENDINGS:
        raise UserError(f"{path}: labels are .csv or .jsonl, not {path.suffix or 'this'}")
    labels = [_label(path, place(path, number), row) for number, row in rows_of(path)]
    seen: set[Path] = set()
    for label in labels:
        if label.image in seen:
            raise UserError(f"{path}: {label.image.name} is labelled twice; keep one line")
        seen.add(label.image)
    for kind, unsafe in (("unsafe", True), ("safe", False)):
        if not any(label.unsafe is unsafe for label in labels):
            raise UserError(f"{path}: no {kind} image; images of both kinds are needed")
    return labels


def image_batches(labels: Sequence[Label]) -> Iterator[list[Picture]]:
    """The images, in order, a few at a time. Raises UserError for a file that is no image."""
    from PIL import Image

    def opened(path: Path) -> Picture:
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{path}: cannot be read as an image: {error}") from None

    for start in range(0, len(labels), BATCH):
        yield [opened(label.image) for label in labels[start : start + BATCH]]


def _label(path: Path, where: str, row: Mapping[str, Any]) -> Label:
    if unknown := [name for name in row if name not in FIELDS]:
        raise UserError(f"{where}: unknown field {unknown[0]!r}; there are: {', '.join(FIELDS)}")
    name, concept = row.get("image"), row.get("concept")
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{where}: field 'image' must name a file")
    if concept is not None and not isinstance(concept, str):
        raise UserError(f"{where}: field 'concept' must be text")
    image = (path.parent / name.strip()).resolve()
    if not image.is_file():
        raise UserError(f"{where}: no image {name!r} beside the labels")
    said = str(row.get("unsafe")).strip().lower()
    if said not in (*_YES, *_NO):
        raise UserError(
            f"{where}: field 'unsafe' is {row.get('unsafe')!r}, not 0, 1, true or false"
        )
    return Label(image, said in _YES, (concept or "").strip())
