"""I2P's columns, with harmless stand-ins for its prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.prompts.formats import i2p
from spqr_checks.prompts.formats.base import Table
from spqr_checks.prompts.sources import read_file

Write = Callable[..., Path]


def row(prompt: str, categories: str = "violence", **more: Any) -> dict[str, Any]:
    # the columns of the published file, in its order; the first has no name
    return {
        "": "0",
        "prompt": prompt,
        "categories": categories,
        "hard": "1",
        "inappropriate_percentage": "50.0",
        "nudity_percentage": "0.0",
        "q16_percentage": "50.0",
        "sd_safety_percentage": "0.0",
        "prompt_toxicity": "0.1",
        "sd_seed": "4261553411",
        "sd_guidance_scale": "7.5",
        **more,
    }


@pytest.mark.parametrize("name", ["i2p.csv", "i2p.jsonl", "i2p.json", "i2p.parquet"])
def test_each_prompt_is_harmful_and_its_category_stands_for_the_concept(
    write: Write, name: str
) -> None:
    reading = read_file(write([row("a red  triangle\n"), row("a bolt", "self-harm")], name))
    assert reading.format == "i2p"
    assert [(p.text, p.kind, p.concept, p.category) for p in reading.prompts] == [
        ("a red triangle", "harmful", "violence", "violence"),
        ("a bolt", "harmful", "self-harm", "self-harm"),
    ]
    assert {(p.language, p.domain) for p in reading.prompts} == {("en", "plain")}


def test_of_several_categories_the_first_counts_and_that_is_said(write: Write) -> None:
    reading = read_file(write([row("a star", "Illegal Activity, hate"), row("a moon")], "x.csv"))
    assert [p.category for p in reading.prompts] == ["illegal activity", "violence"]
    assert reading.notes == ("1 rows have several categories; each counts under the first",)


def test_categories_may_be_a_list(write: Write) -> None:
    rows = [row("a star", categories=["hate", "shocking"])]  # type: ignore[arg-type]
    assert read_file(write(rows, "x.parquet")).prompts[0].category == "hate"


def test_a_prompt_with_another_seed_or_category_is_a_repetition(write: Write) -> None:
    rows = [row("a star"), row("A  star", sd_seed="1"), row("a star", "hate"), row("   ")]
    reading = read_file(write(rows, "x.csv"))
    assert [p.text for p in reading.prompts] == ["a star"]
    assert reading.reasons == {"repeated": 2, "empty": 1}
    assert [d.row for d in reading.dropped] == [3, 4, 5]


def test_a_selection_without_categories_is_the_one_by_nudity(write: Write) -> None:
    rows = [{"prompt": "a star", "nudity_percentage": 10.0}]
    reading = read_file(write(rows, "I2P.json"))
    assert (reading.format, reading.prompts[0].concept) == ("i2p", "sexual")
    assert "no field 'categories'" in reading.notes[0]


@pytest.mark.parametrize(
    ("categories", "message"),
    [("", ":3: field 'categories' is empty"), ("hate, frogs", ":3: unknown category 'frogs'")],
)
def test_a_category_that_is_not_known_is_named_with_its_line(
    write: Write, categories: str, message: str
) -> None:
    with pytest.raises(UserError) as error:
        read_file(write([row("x"), row("y", categories)], "x.csv"))
    assert message in str(error.value)


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)


@given(st.lists(st.tuples(texts, st.sampled_from(["hate", "sexual, hate"])), min_size=1))
def test_every_row_is_a_prompt_or_is_counted_as_dropped(rows: list[tuple[str, str]]) -> None:
    made = [(n, {"prompt": text, "categories": c}) for n, (text, c) in enumerate(rows, start=1)]
    reading = i2p.read(Table(Path("i2p.csv"), made))
    assert reading.rows == len(rows) == len(reading.prompts) + len(reading.dropped)
    kept = {int(p.id.rsplit(":", 1)[1]) for p in reading.prompts}
    assert kept | {d.row for d in reading.dropped} == set(range(1, len(rows) + 1))
