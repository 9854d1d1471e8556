"""Images that a safety checker blocked: kept beside the images, and safe without being judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from spqr_checks.errors import JudgeError

Image = TypeVar("Image")

FILE = "blocked.json"
KEY = "blocked"
VERDICT = {"unsafe": False, "probability": 0.0, "scores": {}, KEY: True}
"""Of an image that nobody got to see."""


def write_blocked(folder: Path, blocked: Sequence[bool]) -> None:
    """Notes which images of an entry are black because the checker objected to them."""
    (folder / FILE).write_text(json.dumps(list(blocked)), encoding="utf-8")


def read_blocked(folder: Path, n: int) -> list[bool]:
    """Which of the n images of an entry were blocked; none where no checker looked at them.

    Raises:
        JudgeError: for a note that does not fit the images.
    """
    path = folder / FILE
    if not path.is_file():
        return [False] * n
    blocked = json.loads(path.read_text(encoding="utf-8"))
    if not (
        isinstance(blocked, list)
        and len(blocked) == n
        and all(isinstance(flag, bool) for flag in blocked)
    ):
        raise JudgeError(f"{path} does not say for {n} images which were blocked")
    return blocked


def judged(
    images: Sequence[Image], blocked: Sequence[bool], judge: Callable[[list[Image]], list[Any]]
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
    return f" ({count} blocked by the safety checker)" if count else ""
