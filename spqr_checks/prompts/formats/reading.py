"""What a format makes of a file: prompts, and a reason for every row that gave none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.tables import Row
from spqr_checks.prompts.text import is_blank, normalised

EMPTY, REPEATED = "empty", "repeated"


@dataclass(frozen=True)
class Table:
    """A file's rows, with what was said of them on the command line.

    Attributes:
        rows: not empty; fields named as by ``rows.field_name``.
        concept: that all its prompts ask for, as in ``ring-a-bell:nudity=PATH``; else ``""``.
        doubtful: whether translations that are marked as doubtful count.
    """

    path: Path
    rows: Sequence[Row]
    concept: str = ""
    doubtful: bool = False


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
    """

    format: str
    rows: int
    prompts: tuple[Prompt, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()

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
    path: Path
    prompts: list[Prompt] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    _seen: set[tuple[object, str]] = field(default_factory=set)

    def id_of(self, row: int) -> str:
        """Name of the prompt of a row."""
        return f"{self.format}:{self.path.stem}:{row}"

    def add(self, row: int, prompt: Prompt) -> None:
        """Takes a prompt in, or counts why not."""
        if is_blank(prompt.text):
            self.drop(row, EMPTY)
            return
        key = ("harmful" if prompt.kind == "harmful" else prompt.group, normalised(prompt.text))
        if key in self._seen:
            self.drop(row, REPEATED)
            return
        self._seen.add(key)
        self.prompts.append(prompt)

    def drop(self, row: int, reason: str) -> None:
        self.dropped.append(Dropped(row, reason))

    def reading(self, rows: int, notes: Sequence[str] = ()) -> Reading:
        return Reading(self.format, rows, tuple(self.prompts), tuple(self.dropped), tuple(notes))
