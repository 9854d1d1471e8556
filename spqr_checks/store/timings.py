"""How long artefacts took to make: what `spqr estimate` reckons with.

::

    root/timings/KIND/ab/abcd….json     of the entry KIND/ab/abcd…

They lie beside the entries and not inside: an entry's bytes follow from its recipe alone, and no
two runs take equally long. Nothing depends on them. A store that cannot be written keeps none, and
what cannot be understood is passed over; no run fails for either.
"""

from __future__ import annotations

import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FOLDER = "timings"
_LARGEST = 1 << 16
_MOST_SECONDS = 1e8
NAME = re.compile(r"[a-z][a-z0-9_-]*/[0-9a-f]{2}/[0-9a-f]{32}\.json")
"""Of the file of one entry below a folder of such."""

Count = Annotated[int, Field(ge=1)]


class Work(BaseModel):
    """What the time to make an artefact depends on, as far as it is known beforehand.

    Attributes:
        name: what is done, for people: ``images``, ``fine-tuning lite``; a line of an estimate.
        by: with what: sampler, batch, judge, device. Times are compared under equal name and
            ``by`` only.
        base: digest of the base model; empty where none is known.
        images: how many are drawn or looked at, where time grows with their number.
        steps: how many a training takes, where time grows with them.
        parts: of a run's own time: cells, or processes that start one after the other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    by: str = ""
    base: str = ""
    images: Count | None = None
    steps: Count | None = None
    parts: Count | None = None

    @property
    def size(self) -> int | None:
        """What time is proportional to."""
        return self.images or self.steps or self.parts


class Timing(Work):
    """One artefact that was made, and the seconds that it took."""

    label: str
    seconds: Annotated[float, Field(ge=0, le=_MOST_SECONDS)]


def record(root: Path, kind: str, key: str, timing: Timing) -> None:
    """Keeps a timing in the store, whole or not at all; one that cannot be kept is dropped."""
    text = timing.model_dump_json(exclude_none=True, indent=1) + "\n"
    _write(root / FOLDER / kind / key[:2] / f"{key}.json", text.encode())


def any_since(root: Path, moment: float) -> bool:
    """Whether a timing was kept at that moment (``time.time()``) or later: something was made."""
    with suppress(OSError):
        return any(f.stat().st_mtime >= moment for f in (root / FOLDER).glob("*/*"))
    return True


def take(root: Path, name: str, content: bytes) -> None:
    """Keeps a timing of another store under its name there, unless there is one or it holds none.

    Args:
        name: ``KIND/ab/abcd….json``.
    """
    path = root / FOLDER / name
    if NAME.fullmatch(name) and len(content) <= _LARGEST and not path.exists():
        with suppress(ValueError):
            Timing.model_validate_json(content)
            _write(path, content)


def files(root: Path) -> dict[str, Path]:
    """The files of all timings, by the name that `take` understands."""
    folder = root / FOLDER
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.glob("*/*/*.json"))}


def _write(path: Path, content: bytes) -> None:
    draft = path.parent / f".{path.stem}.{uuid.uuid4().hex[:8]}"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def read(root: Path) -> tuple[list[Timing], list[Path]]:
    """All timings of a store, and the files among them that hold none."""
    found: list[Timing] = []
    unusable: list[Path] = []
    # sorted, so that equal stores say equal things
    for path in files(root).values():
        try:
            with path.open("rb") as file:
                content = file.read(_LARGEST + 1)
            if len(content) > _LARGEST:
                raise ValueError("a timing is small")
            found.append(Timing.model_validate_json(content))
        except FileNotFoundError:
            continue  # removed since it was listed
        except (OSError, ValueError):  # pydantic's errors among them
            unusable.append(path)
    return found, unusable
