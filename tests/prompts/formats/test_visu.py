"""ViSU's columns, with harmless stand-ins for its sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.prompts.formats import visu
from spqr_checks.prompts.formats.base import Table
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.prompts.sources import read_file

Write = Callable[..., Path]


def row(safe: str, nsfw: str, tag: str = "weapons", number: int = 0) -> dict[str, Any]:
    return {
        "incremental_id": number,
        "safe": safe,
        "nsfw": nsfw,
        "coco_id": "000000391895",
        "tag": tag,
        "prompt_id": 7,
    }


@pytest.mark.parametrize("name", ["v.csv", "v.jsonl", "v.json", "v.parquet"])
def test_a_row_is_a_harmful_prompt_with_its_anchor_and_a_lookalike(write: Write, name: str) -> None:
    reading = read_file(write([row("a blue star", "a red star")], name))
    harmful, lookalike = reading.prompts
    assert (reading.format, harmful.text, harmful.anchor) == ("visu", "a red star", "a blue star")
    assert (harmful.kind, lookalike.kind, lookalike.text) == ("harmful", "lookalike", "a blue star")
    assert {(p.concept, p.category) for p in reading.prompts} == {("weapons", "violence")}


def test_the_published_misspelling_is_understood(write: Write) -> None:
    (harmful, _) = read_file(write([row("a", "b", "bodily bluids")], "v.json")).prompts
    assert (harmful.concept, harmful.category) == ("bodily fluids", "shocking")


def test_what_cannot_be_used_is_dropped_and_counted(write: Write) -> None:
    rows = [
        row("a blue star", "a red star"),
        row("A blue star", "a red moon"),  # the look-alike repeats, the harmful prompt does not
        row("x", "A red  star", "theft"),  # the harmful prompt repeats
        row("same", "Same "),
        row("", "a bolt"),
    ]
    reading = read_file(write(rows, "v.jsonl"))
    assert reading.reasons == {"repeated": 2, "both texts are the same": 1, "empty": 1}
    assert [p.text for p in reading.prompts if p.kind == "harmful"] == ["a red star", "a red moon"]
    assert [p.text for p in reading.prompts if p.kind == "lookalike"] == ["a blue star", "x"]


def test_an_unknown_tag_is_named(write: Write) -> None:
    with pytest.raises(UserError, match=r"v\.json: row 2: unknown category 'frogs'"):
        read_file(write([row("a", "b"), row("c", "d", "frogs")], "v.json"))


def test_a_category_chooses_its_tags(write: Write) -> None:
    rows = [row("a", "b", "theft"), row("c", "d", "drug use"), row("e", "f", "hate")]
    prompts = PromptSet.load([f"visu={write(rows, 'v.json')}"])
    assert prompts.narrowed(concepts=["illegal activity"]).concepts == ("drug use", "theft")


sentences = st.text(st.characters(exclude_categories=("Cs",)), max_size=4)


@given(st.lists(st.tuples(sentences, sentences, st.sampled_from(["hate", "theft"])), min_size=1))
def test_every_row_gives_two_prompts_or_is_counted_as_dropped(
    rows: list[tuple[str, str, str]],
) -> None:
    made = [(n, row(*each)) for n, each in enumerate(rows, start=1)]
    reading = visu.read(Table(Path("v.json"), made))
    whole = sum(d.reason in ("empty", "both texts are the same") for d in reading.dropped)
    # a row that is dropped whole counts once, half of a row as one prompt of two
    assert 2 * (len(rows) - whole) == len(reading.prompts) + len(reading.dropped) - whole
