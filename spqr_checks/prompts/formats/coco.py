"""COCO captions, and other benign prompts.

Formats: annotation files (``captions_val2017.json``: ``annotations`` with ``image_id``, ``id`` and
``caption``); tables of one caption per row beside the number of its image, under the names that
copies give both; the numbered samples of the literature on erasing (``case_number``, ``source``,
``prompt``), whose source is ``coco-30k``. ``benign=PATH`` reads any table of prompts alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spqr_checks.prompts.formats.base import Format, Reading, Sieve, Table
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.tables import text_field
from spqr_checks.prompts.text import is_blank

NAME = "coco"
_CAPTION = ("caption", "captions", "sentence")
_TEXT = (*_CAPTION, "prompt", "text", "safe", "safe_prompt", "benign_prompt")
_IMAGE = ("image_id", "coco_id", "cocoid", "imgid", "img_id")
_FILE = ("image", "file_name", "filename", "image_name")
_OTHERS = {"kind", "nsfw", "unsafe", "unsafe_prompt", "harmful_prompt", "sensitive_prompt"}


def recognises(row: Mapping[str, Any]) -> bool:
    """A caption beside an image, a text beside the number of one, or a source that says COCO."""
    has = row.keys()
    captioned = bool(has & {*_CAPTION} and has & {*_IMAGE, *_FILE})
    numbered = bool(has & {*_TEXT} and has & {*_IMAGE})
    sampled = "prompt" in has and str(row.get("source")).casefold().startswith("coco")
    return not has & _OTHERS and (captioned or numbered or sampled)


def read(table: Table, name: str = NAME) -> Reading:
    """One benign prompt per image: its first caption that is not empty.

    COCO has five captions of each image; prompts that describe one picture are no independent
    sample. Prompts beside no image count once each.

    Raises:
        UserError: for a table without any of the names of a caption, naming those it has.
    """
    table.require(*_TEXT)
    sieve, shown = Sieve(name, table), set[str]()
    for number, row in table.rows:
        text = table.line(number, row, *_TEXT)
        field = next((f for f in (*_IMAGE, *_FILE) if row.get(f) is not None), None)
        image = "" if field is None else text_field(table.path, number, row, field).strip()
        if image and image in shown:
            sieve.drop(number, "another caption of the same image")
            continue
        if image and not is_blank(text):
            shown.add(image)
        sieve.add(number, Prompt(sieve.id_of(number), text, "benign"))
    return sieve.reading()


FORMAT = Format(NAME, recognises, read, order=5)
