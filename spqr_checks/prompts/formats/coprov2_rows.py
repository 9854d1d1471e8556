"""Rows of CoProV2's files, gathered by the ids in their image names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.prompts.categories import required
from spqr_checks.prompts.formats.reading import REPEATED, Dropped
from spqr_checks.prompts.rows import text_field
from spqr_checks.prompts.tables import Row, place
from spqr_checks.prompts.text import is_blank

TRAIN_IMAGE = re.compile(r"(?P<side>[us])_idx_(?P<id>[0-9]{7})_0\.jpg")
TEST_IMAGE = re.compile(r"(?P<side>)(?P<id>[0-9]{7})_0\.jpg")
RELISTED = "listed again under another category"
_SIDES = {"u": "unsafe", "s": "safe"}


@dataclass(frozen=True)
class Counts:
    """What was in a file.

    Attributes:
        rows: all of them.
        repeats: rows equal to an earlier one, dropped.
        relisted: rows that list a known prompt under a further category, joined with it.
        by_category: pairs (test: prompts), each under the category it is first listed in.
    """

    rows: int
    repeats: int
    relisted: int
    by_category: Mapping[str, int]


@dataclass
class Entry:
    """One prompt, from one row or several that agree."""

    line: int
    prompt: str
    categories: list[str]


@dataclass
class Entries:
    """Rows gathered by (side, id): what one id says twice must agree."""

    path: Path
    image: re.Pattern[str]
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    rows: int = 0
    dropped: list[Dropped] = field(default_factory=list)

    def add(self, rows: Iterable[Row]) -> None:
        """Takes the rows in; raises UserError for one that is wrong or contradicts another."""
        for line, row in rows:
            self.rows += 1
            self._add(
                line,
                *(
                    text_field(self.path, line, row, name)
                    for name in ("prompt", "image", "category")
                ),
            )

    def _add(self, line: int, prompt: str, image: str, category_as_written: str) -> None:
        where = place(self.path, line)
        match = self.image.fullmatch(image.strip())
        if match is None:
            raise UserError(f"{where}: {self._foreign(image)}")
        if is_blank(prompt):
            raise UserError(f"{where}: field 'prompt' is missing or empty")
        category = required(self.path, line, category_as_written).category
        entry = self.entries.setdefault((match["side"], match["id"]), Entry(line, prompt, []))
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
        if self.image is TRAIN_IMAGE and TEST_IMAGE.fullmatch(image.strip()):
            return f"{image!r} is a test image; training and test rows cannot share a file"
        if self.image is TEST_IMAGE and TRAIN_IMAGE.fullmatch(image.strip()):
            return f"{image!r} is a training image; this file is read as CoProV2's test file"
        return (
            f"{image!r} is not how CoProV2 names images (u_idx_0000000_0.jpg); "
            "if this is another prompt file, give it the field 'kind'"
        )

    def counts(self, categories: Iterable[str]) -> Counts:
        """Counts of this file, given the category of each pair or prompt."""
        reasons = Counter(dropped.reason for dropped in self.dropped)
        return Counts(self.rows, reasons[REPEATED], reasons[RELISTED], dict(Counter(categories)))
