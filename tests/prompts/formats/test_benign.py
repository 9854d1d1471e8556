"""Benign prompts of published layouts: never read as harmful, nor advised to be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.prompts.categories import known_categories
from spqr_checks.prompts.sources import read_file, read_source

Write = Callable[..., Path]

NUMBERED = {"case_number": 0, "prompt": "a bus", "evaluation_seed": 7}
LAYOUTS: dict[str, dict[str, object]] = {
    "NoNudity_prompt.csv": NUMBERED,
    "violence-retain.csv": NUMBERED,
    "church.csv": {**NUMBERED, "evaluation_guidance": 7.5},
    "hate.csv": {"": 0, **NUMBERED, "class": "bus"},
    "vangogh.csv": {**NUMBERED, "artist": "X"},
    "art_100.csv": {"type": 0, "artist": "X", "prompt": "a bus by X", "evaluation_seed": 1},
    "samples.csv": {"case_number": 0, "source": "mine", "prompt": "a bus"},
    "measured.csv": {"prompt": "a bus", "inappropriate_percentage": 0.0},
    "marked.csv": {"prompt": "a bus", "categories": "benign"},
    "halves.csv": {"prompt": "a bus", "image": "s_idx_0000012_0.jpg", "category": "hate"},
    "pairs.csv": {"unsafe_prompt": "a star", "safe_prompt": "a bus"},
    "list.jsonl": {"prompt": "a bus"},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_may_be_benign_is_asked_and_the_answer_offered_reads_it_so(
    write: Write, name: str
) -> None:
    path = write([LAYOUTS[name]], name)
    with pytest.raises(UserError) as error:
        read_file(path)
    advice = str(error.value).replace(str(path), "PATH")
    if "prompt" in LAYOUTS[name]:
        assert "benign=PATH" in advice
        reading = read_source(f"benign={path}")
        assert [(p.kind, p.concept) for p in reading.prompts] == [("benign", "all")]
    # no other format is named with a concept of its own, nor one that finds concepts itself
    assert not re.search(r"\b(i2p|visu|coprov2|own|pairs)=PATH", advice)
    assert not re.search(rf"ring-a-bell:({'|'.join(known_categories())}|nudity)", advice)


@pytest.mark.parametrize("field", ["safe", "safe_prompt", "benign_prompt"])
def test_the_harmless_half_alone_is_benign(write: Write, field: str) -> None:
    reading = read_file(write([{field: "a bus", "tag": "theft"}], "half.csv"))
    assert [(p.kind, p.text) for p in reading.prompts] == [("benign", "a bus")]


@pytest.mark.parametrize("format", ["", "coco", "visu", "coprov2", "i2p", "ring-a-bell", "pairs"])
def test_a_missing_column_is_answered_with_those_that_are_there(write: Write, format: str) -> None:
    path = write([{"number": 1, "what it shows": "a bus"}], "hate.csv")
    with pytest.raises(
        UserError, match=r"no field '.*; there are: number, what_it_shows\n.*header"
    ):
        read_file(path, format)


def test_what_has_a_usual_name_is_taken_for_a_header(write: Write) -> None:
    with pytest.raises(UserError, match=r"no field 'prompt'; there are: id, text$"):
        read_file(write([{"id": 1, "text": "a bus"}], "p.csv"))
