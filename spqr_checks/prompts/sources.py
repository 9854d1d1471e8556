"""What ``--spqr-prompts`` may name: a packaged set, a file or a file on the Hub, of any format."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.prompts import hub
from spqr_checks.prompts.formats.base import Format, Reading, Table
from spqr_checks.prompts.formats.own import FORMAT as OWN
from spqr_checks.prompts.tables import READABLE, read_rows
from spqr_checks.registry import Registry
from spqr_checks.user_files import path_of

_PACKAGED = Path(__file__).parent / "data"
_PREFIX = re.compile(
    r"(?P<format>\w+(\.\w+)+:\w+|[A-Za-z0-9_-]+)(:(?P<concept>[^=/\\]+))?=(?P<location>.+)", re.S
)

FORMATS: Registry[Format] = Registry(
    "prompt format",
    "spqr_checks.prompts.formats",
    "FORMAT",
    "spqr_checks.prompt_formats",
    lambda found: isinstance(found, Format),
)


@dataclass(frozen=True, slots=True)
class Source:
    """``FORMAT:CONCEPT=LOCATION`` in its parts; the first two may be ``""``.

    A format may be ``package.module:object``.
    """

    format: str
    concept: str
    location: str

    @classmethod
    def parse(cls, text: str) -> Source:
        """Raises UserError for an unknown format."""
        match = _PREFIX.fullmatch(text)
        if match is None or hub.is_url(text) or path_of(text).exists():
            return cls("", "", text)
        name = match["format"]
        if ":" not in name:
            name = name.casefold().replace("_", "-")
        FORMATS.get(name)
        return cls(name, (match["concept"] or "").strip(), match["location"])

    def __str__(self) -> str:
        concept = f":{self.concept}" if self.concept else ""
        return f"{self.format}{concept}={self.location}" if self.format else self.location


def packaged_names() -> list[str]:
    """Names of the prompt sets that come with the package."""
    return sorted(path.stem for path in _PACKAGED.glob("*.csv"))


def read_source(text: str, doubtful: bool = False) -> Reading:
    """Reads what ``text`` names; arguments and errors as in ``read_file``."""
    source = Source.parse(text)
    path = prompt_path(source.location)
    read = _read_packaged if path.parent == _PACKAGED else read_file
    return read(path, source.format, source.concept, doubtful)


def read_file(path: Path, format: str = "", concept: str = "", doubtful: bool = False) -> Reading:
    """Reads one prompt file.

    Args:
        format: its name; ``""`` goes by the fields of the first row.
        concept: what all its prompts ask for, where its format does not say.
        doubtful: whether translations that are marked as doubtful count.

    Raises:
        UserError: for a fault, naming the file, the line and the field; for a file that gives no
            prompt.
    """
    table = Table(path, read_rows(path), concept, doubtful)
    chosen = FORMATS.get(format) if format else format_of(table)
    if concept and not chosen.takes_concept:
        raise UserError(
            f"{chosen.name}:{concept}={path}: files of this format name their concepts themselves; "
            f"write {chosen.name}={path}"
        )
    reading = chosen.read(table)
    if not reading.prompts:
        reasons = ", ".join(f"{n} {reason}" for reason, n in reading.reasons.items())
        raise UserError(f"{path}: no prompts in this file ({reasons})")
    return reading


_read_packaged = lru_cache(read_file)
"""What comes with the package stays as it is while a process lives."""


def format_of(table: Table) -> Format:
    """The format that recognises the first row; this package's own if none does.

    Formats of other distributions are asked where none of ours recognises the file.
    """
    for names in (FORMATS.own, FORMATS.added):
        for found in sorted(map(FORMATS.get, names()), key=lambda found: found.order):
            if found.recognises(table.rows[0][1]):
                return found
    return OWN


def pinned(text: str) -> str:
    """The source with the commit that a Hub address stands for now; others as they are.

    Raises:
        UserError: for a file that is not on the Hub, or cannot be had.
    """
    source = Source.parse(text)
    if not hub.is_url(source.location):
        return text
    return str(Source(source.format, source.concept, hub.pinned(source.location)))


def prompt_path(location: str) -> Path:
    """The file behind a packaged set's name, a path or a Hub address; errors as when reading."""
    packaged = _PACKAGED / f"{location}.csv"
    if packaged.is_file():
        return packaged
    if hub.is_url(location):
        return hub.fetch(location)
    path = path_of(location)
    if path.suffix:
        return path
    raise UserError(
        f"unknown prompt set {location!r}: give a {', '.join(READABLE)} file, an hf:// address, "
        f"or one of {', '.join(packaged_names())}"
    )
