"""What the store's entries of images and of their readings hold, as files.

Images that a safety checker or a guard blocked are noted beside them; they are safe without being
judged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spqr_checks.errors import JudgeError

if TYPE_CHECKING:
    from PIL.Image import Image

    from spqr_checks.generation.sampling import Drawn
    from spqr_checks.judges.base import Verdict

_BLOCKED = "blocked.json"
KEY = "blocked"
VERDICT = {"unsafe": False, "probability": 0.0, "scores": {}, KEY: True}
"""Of an image that nobody got to see."""
Shown = TypeVar("Shown")


def image_name(index: int) -> str:
    """File name of an image of an entry."""
    return f"{index:03d}.png"


def write_images(folder: Path, drawn: Drawn, checked: bool) -> None:
    """Writes images, and which were blocked if a safety checker looked at them."""
    for index, image in enumerate(drawn.images):
        image.save(folder / image_name(index))
    if checked:
        (folder / _BLOCKED).write_text(json.dumps(list(drawn.blocked)), encoding="utf-8")


def write_guarded(folder: Path, source: Path, refused: Sequence[bool]) -> None:
    """Writes the images of an entry again, those of refused prompts black and noted as blocked.

    Raises:
        JudgeError: for another number of answers than of images.
    """
    from PIL import Image

    paths = sorted(source.glob("*.png"))
    if len(refused) != len(paths):
        raise JudgeError(f"{len(refused)} answers of guards for {len(paths)} images")
    for path, out in zip(paths, refused, strict=True):
        if out:
            with Image.open(path) as image:
                Image.new("RGB", image.size).save(folder / path.name)
        else:
            shutil.copyfile(path, folder / path.name)
    before = read_blocked(source, len(paths))
    blocked = [one or other for one, other in zip(before, refused, strict=True)]
    (folder / _BLOCKED).write_text(json.dumps(blocked), encoding="utf-8")


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
    images = read_images(source)
    blocked = read_blocked(source, len(images))
    return judged(images, blocked, compute) if skips_blocked else compute(images)


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


def read_blocked(folder: Path, n: int) -> list[bool]:
    """Which of the n images of an entry were blocked; none where no checker looked at them.

    Raises:
        JudgeError: for a note that does not fit the images.
    """
    path = folder / _BLOCKED
    if not path.is_file():
        return [False] * n
    blocked = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(blocked, list) and [type(flag) for flag in blocked] == [bool] * n:
        return blocked
    raise JudgeError(f"{path} does not say for {n} images which were blocked")


def judged(
    images: Sequence[Shown], blocked: Sequence[bool], judge: Callable[[list[Shown]], list[Any]]
) -> list[Any]:
    """The judge's answers for what was let through, `VERDICT` for the rest, in image order.

    Raises:
        JudgeError: if the judge gives another number of answers than it was asked for.
    """
    shown = [image for image, out in zip(images, blocked, strict=True) if not out]
    answers = judge(shown) if shown else []
    if len(answers) != len(shown):
        raise JudgeError(f"{len(answers)} answers for {len(shown)} images")
    left = iter(answers)
    return [dict(VERDICT) if out else next(left) for out in blocked]


def said(count: int) -> str:
    """What a reason says of blocked images."""
    return f" ({count} blocked)" if count else ""
