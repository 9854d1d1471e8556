"""What a format of prompt files is, and what it makes of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.categories import Place
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.tables import Row, fields_of, require, text_field
from spqr_checks.prompts.text import is_blank, normalised, one_line

EMPTY, REPEATED = "empty", "repeated"


@dataclass(frozen=True)
class Table:
    """A file's rows, with what was said of them on the command line.

    Attributes:
        rows: not empty; fields named as by ``tables.field_name``.
        concept: that all its prompts ask for, as in ``ring-a-bell:nudity=PATH``; else ``""``.
        doubtful: whether translations that are marked as doubtful count.
    """

    path: Path
    rows: Sequence[Row]
    concept: str = ""
    doubtful: bool = False

    def require(self, *names: str) -> None:
        """Raises UserError, naming the fields that are there, where no row has one of these."""
        require(self.path, self.rows, *names)

    def undecided(self, harmful: str) -> UserError:
        """The question whether the prompts are harmful, which is never answered for the user.

        Args:
            harmful: what to do where they are.
        """
        return UserError(
            f"{self.path}: nothing says whether these prompts are harmful or benign; "
            f"the fields are: {', '.join(fields_of(self.rows))}\n"
            f"If benign, write benign={self.path}; if harmful, {harmful}"
        )

    def line(self, number: int, row: Mapping[str, Any], *names: str) -> str:
        """The text of the first of these fields that a row has, on one line."""
        several = len(names) > 1
        name = next((n for n in names if n in row), names[-1]) if several else names[0]
        return one_line(text_field(self.path, number, row, name))


@dataclass(frozen=True, slots=True)
class Dropped:
    """A prompt that was left out; ``row`` is its line, or its number where lines do not count."""

    row: int
    reason: str


@dataclass(frozen=True)
class Reading:
    """A file read.

    Attributes:
        rows: how many there are in the file; each gave prompts, or is among the dropped.
        notes: what else people should know, a sentence each.
        places: id → file and line of a prompt, where faults of the file are refused.
    """

    format: str
    rows: int
    prompts: tuple[Prompt, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> Mapping[str, int]:
        """Reason → how many prompts were dropped for it, the most frequent first."""
        return dict(Counter(d.reason for d in self.dropped).most_common())


@dataclass
class Sieve:
    """Gathers the prompts of a published set, whose faults are counted rather than refused.

    Of harmful prompts each text counts once, whatever its concepts, so that no image counts in two
    cells; others count once in their group.
    """

    format: str
    table: Table
    notes: list[str] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    _seen: set[tuple[object, str]] = field(default_factory=set)

    def id_of(self, row: int) -> str:
        """Name of the prompt of a row."""
        return f"{self.format}:{self.table.path.stem}:{row}"

    def add(self, row: int, prompt: Prompt) -> None:
        """Takes a prompt in, or counts why not."""
        key = ("harmful" if prompt.kind == "harmful" else prompt.group, normalised(prompt.text))
        if is_blank(prompt.text):
            self.drop(row, EMPTY)
        elif key in self._seen:
            self.drop(row, REPEATED)
        else:
            self._seen.add(key)
            self.prompts.append(prompt)

    def harmful(self, row: int, text: str, where: Place, domain: str = "plain") -> None:
        """Takes a harmful prompt of a row in, as ``add`` does."""
        name = self.id_of(row)
        self.add(row, Prompt(name, text, "harmful", where.concept, where.category, domain=domain))

    def drop(self, row: int, reason: str) -> None:
        self.dropped.append(Dropped(row, reason))

    def reading(self) -> Reading:
        rows = len(self.table.rows)
        return Reading(
            self.format, rows, tuple(self.prompts), tuple(self.dropped), tuple(self.notes)
        )


@dataclass(frozen=True)
class Format:
    """How one kind of file is known and read: ``FORMAT`` in a file of this folder.

    Attributes:
        name: as in ``NAME=PATH``.
        recognises: whether a file whose first row has these fields is one.
        order: the first that recognises a file reads it, the lowest number being tried first.
        takes_concept: whether ``NAME:CONCEPT=PATH`` means something.
    """

    name: str
    recognises: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Table], Reading]
    order: int = 100
    takes_concept: bool = False
