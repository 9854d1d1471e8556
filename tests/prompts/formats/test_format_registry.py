"""Formats are known by their fields, or named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.prompts.formats.base import Table
from spqr_checks.prompts.sources import FORMATS, format_of, read_file

Write = Callable[..., Path]

FIELDS = {
    "own": "prompt kind categories nsfw safe image_id",
    "pairs": "id category unsafe safe",
    "visu": "incremental_id safe nsfw coco_id tag prompt_id",
    "coprov2": "prompt image category",
    "i2p": "prompt categories hard sd_seed nudity_percentage case_number evaluation_seed",
    "coco": "image_id id caption",
    "benign": "safe tag",
    "ring-a-bell": "prompt case_number evaluation_seed",
    "genbreak": "prompt category round",
    "mma": "target_prompt adv_prompt sanitized_adv_prompt clean_prompt",
}


@pytest.mark.parametrize("name", FORMATS.names())
def test_every_format_is_known_by_its_fields_alone(name: str) -> None:
    row = dict.fromkeys(FIELDS[name].split(), "x")
    assert format_of(Table(Path("p.csv"), [(2, row)])).name == name


def test_the_page_of_prompts_tells_every_format() -> None:
    page = (Path(__file__).parents[3] / "docs" / "prompts.md").read_text(encoding="utf-8")
    told = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert set(FORMATS.own()) <= set(told)


def test_a_named_format_beats_the_fields(write: Write) -> None:
    rows = [{"prompt": "a star", "kind": "benign", "categories": "hate"}]
    path = write(rows, "p.csv")
    assert read_file(path).prompts[0].kind == "benign"
    assert read_file(path, "i2p").prompts[0].kind == "harmful"


def test_mistakes_in_naming_are_answered(write: Write) -> None:
    path = write([{"prompt": "a star", "kind": "benign"}], "p.csv")
    with pytest.raises(UserError, match=r"format 'i3p'; there are: benign, coco, .*'i2p'"):
        read_file(path, "i3p")
    with pytest.raises(UserError, match=r"name their concepts themselves; write own="):
        read_file(path, "own", "hate")
