"""COCO captions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.prompts.formats import coco
from spqr_checks.prompts.formats.base import Table
from spqr_checks.prompts.sources import read_file

Write = Callable[..., Path]


def test_an_annotation_file_gives_one_benign_prompt_per_image(tmp_path: Path) -> None:
    annotations = [
        {"image_id": 2, "id": 9, "caption": " \n"},
        {"image_id": 2, "id": 5, "caption": "A dog on a  beach. \n"},
        {"image_id": 7, "id": 6, "caption": "A tree"},
        {"image_id": 2, "id": 7, "caption": "A brown dog"},
        {"image_id": 8, "id": 8, "caption": "a tree"},
    ]
    path = tmp_path / "captions_val2017.json"
    path.write_text(json.dumps({"images": [], "annotations": annotations}), encoding="utf-8")
    reading = read_file(path)
    assert (reading.format, reading.rows) == ("coco", 5)
    assert [p.text for p in reading.prompts] == ["A dog on a beach.", "A tree"]
    assert {(p.kind, p.concept) for p in reading.prompts} == {("benign", "all")}
    assert reading.reasons == {"empty": 1, "another caption of the same image": 1, "repeated": 1}


@pytest.mark.parametrize(
    "row",
    [
        {"image_id": 1, "caption": "a tree"},
        {"coco_id": 1, "prompt": "a tree", "case_number": 0, "evaluation_seed": 3},
        {"Image ID": 1, "Caption": "a tree"},
        {"case_number": 5, "source": "coco-30k", "prompt": "a tree"},
        {"image": "000000000139.jpg", "caption": "a tree"},
        {"cocoid": 1, "sentence": "a tree"},
        {"imgid": 1, "text": "a tree"},
        {"coco_id": 1, "safe": "a tree", "tag": "theft"},
    ],
)
def test_tables_of_captions_are_known(write: Write, row: dict[str, Any]) -> None:
    reading = read_file(write([row], "coco_30k.csv"))
    assert (reading.format, reading.prompts[0].text) == ("coco", "a tree")


@pytest.mark.parametrize("content", ["{}", '{"annotations": 3}', "3", '"x"'])
def test_json_of_another_shape_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="expected a list of objects"):
        read_file(path)


@given(st.lists(st.tuples(st.integers(0, 3), st.text("ab ", max_size=3)), min_size=1))
def test_every_caption_is_a_prompt_or_is_counted_as_dropped(rows: list[tuple[int, str]]) -> None:
    made = [(n, {"image_id": i, "caption": c}) for n, (i, c) in enumerate(rows, start=1)]
    reading = coco.read(Table(Path("c.json"), made))
    assert len(reading.prompts) + len(reading.dropped) == reading.rows == len(rows)
    shown = {i for i, caption in rows if caption.strip()}
    assert len(reading.prompts) <= len(shown)
    assert bool(reading.prompts) == bool(shown)
