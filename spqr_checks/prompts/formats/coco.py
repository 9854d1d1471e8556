"""COCO captions: benign prompts.

Formats: annotation files (``captions_val2017.json``: ``annotations`` with ``image_id``, ``id`` and
``caption``), and tables of one caption per row with ``caption`` or ``prompt`` beside ``image_id``
or ``coco_id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spqr_checks.prompts.formats.base import Format, Reading, Sieve, Table
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.tables import text_field
from spqr_checks.prompts.text import is_blank

NAME = "coco"
_TEXT = ("caption", "prompt")
_IMAGE = ("image_id", "coco_id")


def recognises(row: Mapping[str, Any]) -> bool:
    """A text beside the number of a COCO image."""
    has = row.keys()
    return not has & {"kind", "nsfw"} and bool(has & {*_TEXT}) and bool(has & {*_IMAGE})


def read(table: Table) -> Reading:
    """One benign prompt per image: its first caption that is not empty.

    COCO has five captions of each image; prompts that describe one picture are no independent
    sample.
    """
    sieve, shown = Sieve(NAME, table), set[str]()
    for number, row in table.rows:
        text = table.line(number, row, *_TEXT)
        field = next((name for name in _IMAGE if row.get(name) is not None), None)
        image = "" if field is None else text_field(table.path, number, row, field).strip()
        if image and image in shown:
            sieve.drop(number, "another caption of the same image")
            continue
        if image and not is_blank(text):
            shown.add(image)
        sieve.add(number, Prompt(sieve.id_of(number), text, "benign"))
    return sieve.reading()


FORMAT = Format(NAME, recognises, read, order=5)
