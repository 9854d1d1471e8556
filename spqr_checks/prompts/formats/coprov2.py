"""CoProV2's own CSV files: paired training prompts, and unsafe test prompts.

Format (github.com/Visualignment/SafetyDPO, ``data/*.csv``; AlignGuard, arXiv 2412.10493): columns
``prompt,image,category``. The image's name carries the pair: ``u_idx_0000012_0.jpg`` and
``s_idx_0000012_0.jpg`` are the unsafe and the safe prompt of pair 12; test images are
``0000012_0.jpg``. Concepts were not published, so that the category stands for the concept.
The published file lists 321 pairs under several categories; each counts under its first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.categories import required
from spqr_checks.prompts.formats.base import REPEATED, Dropped, Format, Reading, Table
from spqr_checks.prompts.prompt import Prompt, PromptPair
from spqr_checks.prompts.tables import Row, place, text_field
from spqr_checks.prompts.text import is_blank, one_line

NAME = "coprov2"
COLUMNS = ("prompt", "image", "category")
RELISTED = "listed again under another category"
_TRAIN = re.compile(r"(?P<side>[us])_idx_(?P<id>[0-9]{7})_0\.jpg")
_TEST = re.compile(r"(?P<side>)(?P<id>[0-9]{7})_0\.jpg")
_SIDES = {"u": "unsafe", "s": "safe"}


def recognises(row: Mapping[str, Any]) -> bool:
    """Whether the fields are those of CoProV2; our own prompt files always have a ``kind``."""
    return row.keys() >= set(COLUMNS) and "kind" not in row


def read(table: Table) -> Reading:
    """Either file as prompts: pairs as ``PromptPair.prompts``, test prompts without anchors.

    Raises:
        UserError: for a missing twin, rows of one id that contradict each other, an empty prompt,
            an unknown category or a foreign image name; it names the line.
    """
    path, rows = table.path, table.rows
    for name in COLUMNS:
        table.require(name)
    test = _TEST.fullmatch(text_field(path, *rows[0], "image").strip())
    entries = _Entries(path, _TEST if test else _TRAIN)
    entries.add(rows)
    if test:
        prompts = [
            Prompt(f"{path.stem}:{number}", one_line(e.prompt), "harmful", *e.categories[:1] * 2)
            for (_, number), e in entries.entries.items()
        ]
    else:
        prompts = [prompt for pair in entries.pairs() for prompt in pair.prompts]
    return Reading(NAME, len(rows), tuple(prompts), tuple(entries.dropped))


def training_pairs(path: Path, rows: Iterable[Row]) -> list[PromptPair]:
    """The pairs of the training file, in the order of their first rows.

    Raises:
        UserError: as ``read`` does, and for the test file.
    """
    entries = _Entries(path, _TRAIN)
    entries.add(rows)
    return entries.pairs()


@dataclass
class _Entry:
    """One prompt, from one row or several that agree."""

    line: int
    prompt: str
    categories: list[str]


@dataclass
class _Entries:
    """Rows gathered by (side, id): what one id says twice must agree."""

    path: Path
    image: re.Pattern[str]
    entries: dict[tuple[str, str], _Entry] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)

    def add(self, rows: Iterable[Row]) -> None:
        """Takes the rows in; raises UserError for one that is wrong or contradicts another."""
        for line, row in rows:
            self._add(line, *(text_field(self.path, line, row, name) for name in COLUMNS))

    def _add(self, line: int, prompt: str, image: str, category_as_written: str) -> None:
        where = place(self.path, line)
        match = self.image.fullmatch(image.strip())
        if match is None:
            raise UserError(f"{where}: {self._foreign(image)}")
        if is_blank(prompt):
            raise UserError(f"{where}: field 'prompt' is missing or empty")
        category = required(self.path, line, category_as_written).category
        entry = self.entries.setdefault((match["side"], match["id"]), _Entry(line, prompt, []))
        if entry.prompt != prompt:
            side = _SIDES.get(match["side"], "test")
            raise UserError(
                f"{where}: id {match['id']} has another {side} prompt in line {entry.line}; "
                "keep one of the two"
            )
        if category in entry.categories:
            self.dropped.append(Dropped(line, REPEATED))
            return
        if entry.categories:
            self.dropped.append(Dropped(line, RELISTED))
        entry.categories.append(category)

    def _foreign(self, image: str) -> str:
        if self.image is _TRAIN and _TEST.fullmatch(image.strip()):
            return f"{image!r} is a test image; training and test rows cannot share a file"
        if self.image is _TEST and _TRAIN.fullmatch(image.strip()):
            return f"{image!r} is a training image; this file is read as CoProV2's test file"
        return (
            f"{image!r} is not how CoProV2 names images (u_idx_0000000_0.jpg); "
            "if this is another prompt file, give it the field 'kind'"
        )

    def pairs(self) -> list[PromptPair]:
        """The training pairs; raises UserError for a twin that is missing or contradicts."""
        if self.entries and not any(side == "u" for side, _ in self.entries):
            raise UserError(
                f"{self.path}: only the safe halves of pairs; as benign prompts they are read with "
                f"benign={self.path}"
            )
        numbers, get = dict.fromkeys(number for _, number in self.entries), self.entries.get
        return [self._pair(n, get(("u", n)), get(("s", n))) for n in numbers]

    def _pair(self, number: str, unsafe: _Entry | None, safe: _Entry | None) -> PromptPair:
        if unsafe is None or safe is None:
            there, missing = (unsafe, "safe") if unsafe else (safe, "unsafe")
            assert there is not None
            raise UserError(
                f"{place(self.path, there.line)}: id {number} has no {missing} twin "
                f"({missing[0]}_idx_{number}_0.jpg); add that row or take this one out"
            )
        where = place(self.path, safe.line)
        if unsafe.categories != safe.categories:
            raise UserError(
                f"{where}: id {number} is in {', '.join(safe.categories)} but its "
                f"unsafe twin (line {unsafe.line}) in {', '.join(unsafe.categories)}"
            )
        try:
            return PromptPair(
                f"{self.path.stem}:{number}", unsafe.categories[0], unsafe.prompt, safe.prompt
            )
        except ValueError as error:
            raise UserError(f"{where}: id {number}: {error}") from None


FORMAT = Format(NAME, recognises, read, order=3)
