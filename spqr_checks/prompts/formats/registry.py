"""Which formats there are, and which one a file has."""

from __future__ import annotations

from collections.abc import Iterator

from spqr_checks.prompts.formats.base import Format
from spqr_checks.prompts.formats.own import FORMAT as OWN
from spqr_checks.prompts.formats.reading import Table
from spqr_checks.registry import Registry

FORMATS: Registry[Format] = Registry(
    "prompt format",
    "spqr_checks.prompts.formats",
    "FORMAT",
    "spqr_checks.prompt_formats",
    lambda found: isinstance(found, Format),
)
format_named = FORMATS.get


def format_of(table: Table) -> Format:
    """The format that recognises the first row; this package's own if none does.

    Formats of other distributions are asked where none of ours recognises the file.
    """
    first = table.rows[0][1]
    return next((found for found in _tried() if found.recognises(first)), OWN)


def _tried() -> Iterator[Format]:
    for names in (FORMATS.own, FORMATS.added):
        yield from sorted(map(FORMATS.get, names()), key=lambda found: found.order)
