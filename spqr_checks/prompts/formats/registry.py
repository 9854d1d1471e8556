"""Which formats there are, and which one a file has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.formats import coco, coprov2, i2p, own, pairs, ring_a_bell, visu
from spqr_checks.prompts.formats.reading import Reading, Table


@dataclass(frozen=True)
class Format:
    """How one kind of file is known and read.

    Attributes:
        name: as in ``NAME=PATH``.
        recognises: whether a file whose first row has these fields is one.
        takes_concept: whether ``NAME:CONCEPT=PATH`` means something.
    """

    name: str
    recognises: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Table], Reading]
    takes_concept: bool = False


FORMATS = {
    format.name: format
    for format in (
        # in the order in which they are tried: the first that recognises a file reads it
        Format(own.NAME, own.recognises, own.read),
        Format(pairs.NAME, pairs.recognises, pairs.read),
        Format(visu.NAME, visu.recognises, visu.read),
        Format(coprov2.NAME, coprov2.is_coprov2_row, coprov2.read),
        Format(i2p.NAME, i2p.recognises, i2p.read),
        Format(coco.NAME, coco.recognises, coco.read),
        Format(ring_a_bell.NAME, ring_a_bell.recognises, ring_a_bell.read, takes_concept=True),
    )
}


def format_named(name: str) -> Format:
    """Raises UserError for an unknown name, listing those there are."""
    if name not in FORMATS:
        raise UserError(f"unknown prompt format {name!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[name]


def format_of(table: Table) -> Format:
    """The format that recognises the first row; this package's own if none does."""
    first = table.rows[0][1]
    return next((f for f in FORMATS.values() if f.recognises(first)), FORMATS[own.NAME])
