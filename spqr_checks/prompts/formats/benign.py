"""Benign prompts of any table: objects, styles, the harmless halves of other sets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from spqr_checks.prompts.formats import coco
from spqr_checks.prompts.formats.base import Format

NAME = "benign"


def recognises(row: Mapping[str, Any]) -> bool:
    """A column that says so, alone: beside it nothing that could be its harmful half."""
    has = row.keys()
    others = {"kind", "prompt", "nsfw"} & has or any("unsafe" in f or "harm" in f for f in has)
    return not others and bool(has & {"safe", "safe_prompt", "benign_prompt"})


FORMAT = Format(NAME, recognises, partial(coco.read, name=NAME), order=7)
