"""COCO captions: benign prompts.

Formats: annotation files (``captions_val2017.json``: ``annotations`` with ``image_id``, ``id`` and
``caption``), and tables of one caption per row with ``caption`` or ``prompt`` beside ``image_id``
or ``coco_id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spqr_checks.prompts.formats.base import Format
from spqr_checks.prompts.formats.reading import Reading, Sieve, Table
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.rows import text_field
from spqr_checks.prompts.text import is_blank, one_line

NAME = "coco"
_TEXT = ("caption", "prompt")
_IMAGE = ("image_id", "coco_id")
_ANOTHER = "another caption of the same image"


def recognises(row: Mapping[str, Any]) -> bool:
    """A text beside the number of a COCO image."""
    return (
        "kind" not in row
        and "nsfw" not in row
        and any(name in row for name in _TEXT)
        and any(name in row for name in _IMAGE)
    )


def read(table: Table) -> Reading:
    """One benign prompt per image: its first caption that is not empty.

    COCO has five captions of each image; prompts that describe one picture are no independent
    sample.
    """
    sieve, shown = Sieve(NAME, table.path), set[str]()
    for number, row in table.rows:
        name = next((name for name in _TEXT if name in row), _TEXT[0])
        text = one_line(text_field(table.path, number, row, name))
        field = next((name for name in _IMAGE if row.get(name) is not None), None)
        image = "" if field is None else text_field(table.path, number, row, field).strip()
        if image and image in shown:
            sieve.drop(number, _ANOTHER)
            continue
        if image and not is_blank(text):
            shown.add(image)
        sieve.add(number, Prompt(sieve.id_of(number), text, "benign"))
    return sieve.reading(len(table.rows))


FORMAT = Format(NAME, recognises, read, order=5)
