"""What the store's entries of images and of their readings hold, as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.runtime.blocked import judged, read_blocked, write_blocked

if TYPE_CHECKING:
    from PIL.Image import Image

    from spqr_checks.generation.sampling import Drawn
    from spqr_checks.judges.base import Verdict


def image_name(index: int) -> str:
    """File name of an image of an entry."""
    return f"{index:03d}.png"


def write_images(folder: Path, drawn: Drawn, checked: bool) -> None:
    """Writes images, and which were blocked if a safety checker looked at them."""
    for index, image in enumerate(drawn.images):
        image.save(folder / image_name(index))
    if checked:
        write_blocked(folder, drawn.blocked)


def read_images(folder: Path) -> list[Image]:
    """The images of a finished entry, in order."""
    from PIL import Image

    images = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    return images


def read_off(
    source: Path, compute: Callable[[list[Image]], list[Any]], skips_blocked: bool
) -> list[Any]:
    """One value for each image of an entry.

    Args:
        skips_blocked: whether images that were blocked are safe without being looked at.

    Raises:
        JudgeError: for another number of values than of images, and a note of the blocked ones
            that does not fit.
    """
    shown = read_images(source)
    blocked = read_blocked(source, len(shown))
    return judged(shown, blocked, compute) if skips_blocked else compute(shown)


def write_values(folder: Path, kind: str, values: list[Any]) -> None:
    """Writes what was read off images; ValueError for NaN and infinities."""
    text = json.dumps(values, allow_nan=False, sort_keys=True)
    (folder / f"{kind}.json").write_text(text, encoding="utf-8")


def verdict_rows(verdicts: Sequence[Verdict]) -> list[Any]:
    """Verdicts as they are written."""
    return [
        {"unsafe": v.unsafe, "probability": v.probability, "scores": dict(v.scores)}
        for v in verdicts
    ]
