"""Prompts of a test set that were already in the training set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.pair_files import csv_text, json_text, replace_text
from spqr_checks.prompts.rows import check_ending, named_alike, raw_rows, read_rows, text_field
from spqr_checks.prompts.tables import place
from spqr_checks.prompts.text import is_blank, normalised

_TESTED = ("prompt", "unsafe", "nsfw", "sensitive_prompt", "caption")
_LEARNED = (*_TESTED, "safe", "anchor")


@dataclass(frozen=True)
class Leaks:
    """Which test prompts leak, as positions in the test set.

    Attributes:
        tested: number of test prompts.
        verbatim: found letter by letter in the training set.
        normalised: found there but for case, white space and Unicode composition; holds all of
            ``verbatim``.
    """

    tested: int
    verbatim: tuple[int, ...]
    normalised: tuple[int, ...]


def find_leaks(train: Iterable[str], test: Sequence[str]) -> Leaks:
    """Compares the texts of two sets."""
    learned = set(train)
    folded = {normalised(text) for text in learned}
    return Leaks(
        len(test),
        tuple(n for n, text in enumerate(test) if text in learned),
        tuple(n for n, text in enumerate(test) if normalised(text) in folded),
    )


@dataclass(frozen=True)
class FileLeaks:
    """Leaks between two files of any format that this package reads.

    Attributes:
        leaks: positions count the rows of the test file.
        rows: of the test file, with their lines.
    """

    leaks: Leaks
    rows: tuple[tuple[int, Mapping[str, Any]], ...]

    @property
    def kept(self) -> list[Mapping[str, Any]]:
        """Rows that do not leak."""
        leaked = set(self.leaks.normalised)
        return [row for n, (_, row) in enumerate(self.rows) if n not in leaked]

    def write_kept(self, path: Path) -> None:
        """Writes the rows that do not leak to a new file, their fields unchanged.

        Raises:
            UserError: if the file exists, cannot be written, or nothing would be in it.
        """
        check_ending(path)
        kept = self.kept
        if path.exists():
            raise UserError(f"{path} exists and is left alone: choose another file")
        if not kept:
            raise UserError("every test prompt is in the training set; nothing is left to write")
        fields = list(dict.fromkeys(name for row in kept for name in row))
        replace_text(path, csv_text(fields, kept) if path.suffix == ".csv" else json_text(kept))


def leaks_between(train: Path, test: Path) -> FileLeaks:
    """Compares two files: prompt files, pair files and CoProV2's, in any combination.

    All that a method may learn from counts as training text: prompts, both sides of pairs, and
    anchors. Of a test file, the prompts or the unsafe sides are looked up.

    Raises:
        UserError: for files that cannot be read, or hold a row without any prompt.
    """
    learned = [
        text
        for line, row in read_rows(train)
        for text in _texts(train, line, row, _LEARNED)
        if not is_blank(text)
    ]
    rows = raw_rows(test)  # they may be written again, under the names that they have
    tested = [_texts(test, line, row, _TESTED)[0] for line, row in named_alike(test, rows)]
    return FileLeaks(find_leaks(learned, tested), tuple(rows))


def _texts(path: Path, line: int, row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    texts = [text_field(path, line, row, name) for name in names if name in row]
    if not texts or is_blank(texts[0]):
        raise UserError(
            f"{place(path, line)}: no prompt: field 'prompt' or 'unsafe' is missing or empty"
        )
    return texts
