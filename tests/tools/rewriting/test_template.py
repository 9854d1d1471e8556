"""Pairs from slot tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.rewriter import Failed, Written
from spqr_checks.tools.rewriting.slot_table import SlotTable, slots_of
from spqr_checks.tools.rewriting.template import TemplateRewriter

TRIANGLE = Concept("red triangle", "signals")
HAZARD = Concept("hazard sign", "warnings")


def series(rewriter: TemplateRewriter, concept: Concept, n: int) -> list[str]:
    answers = [rewriter.ask(concept, number, ()) for number in range(n)]
    return [answer.text for answer in answers if isinstance(answer, Written)]


def test_a_series_holds_every_caption_of_the_concept_once(table: SlotTable) -> None:
    assert sorted(series(TemplateRewriter(table), TRIANGLE, 99)) == [
        "a large red triangle",
        "a red triangle",
        "a small red triangle",
    ]
    # all colours and sizes, except what never is: large and blue
    assert len(series(TemplateRewriter(table), HAZARD, 99)) == 3 + 5 + 2


def test_what_the_table_has_no_more_of_is_said(table: SlotTable) -> None:
    answer = TemplateRewriter(table).ask(TRIANGLE, 3, ())
    assert answer == Failed("exhausted", "the table has 3 captions of this concept")


@given(st.integers(0, 9), st.integers(0, 50))
def test_the_order_is_the_seed_s_and_does_not_depend_on_what_was_asked_before(
    number: int, seed: int
) -> None:
    table = SlotTable.parse(
        {
            "name": "t",
            "templates": ["a {colour} {shape}"],
            "slots": {"colour": list("abcdefghij"), "shape": ["star", "moon"]},
            "concepts": {
                "star": {
                    "category": "c",
                    "shown_by": {"shape": "star"},
                    "replace": {"shape": ["moon"]},
                }
            },
        },
        "t",
    )
    star = Concept("star", "c")
    whole = series(TemplateRewriter(table, seed), star, 10)
    assert sorted(whole) == [f"a {letter} star" for letter in "abcdefghij"]
    assert TemplateRewriter(table, seed).ask(star, number, ()) == Written(whole[number])


def test_another_seed_gives_another_order(table: SlotTable) -> None:
    orders = {tuple(series(TemplateRewriter(table, seed), HAZARD, 10)) for seed in range(5)}
    assert len(orders) > 1


def test_one_word_changes_and_no_concept_is_left(table: SlotTable) -> None:
    rewriter = TemplateRewriter(table)
    for concept in (TRIANGLE, HAZARD):
        for unsafe in series(rewriter, concept, 99):
            answer = rewriter.rewrite(concept, unsafe)
            assert isinstance(answer, Written)
            ((_, before),), ((_, after),) = table.parses(unsafe), table.parses(answer.text)
            assert sum(before[slot] != after[slot] for slot in before) == 1
            assert table.is_safe(after)
            assert rewriter.rewrite(concept, unsafe) == answer


def test_a_replacement_never_makes_another_concept_or_what_never_is(table: SlotTable) -> None:
    for seed in range(20):
        rewriter = TemplateRewriter(table, seed)
        # not a red triangle
        assert rewriter.rewrite(HAZARD, "a red hazard sign") == Written("a red star")
        # not large and blue
        assert rewriter.rewrite(TRIANGLE, "a large red triangle") == Written(
            "a large green triangle"
        )


def test_a_caption_that_cannot_be_made_safe_fails(table_values: dict[str, Any]) -> None:
    table_values["concepts"]["hazard sign"]["replace"] = {"shape": ["triangle"]}
    rewriter = TemplateRewriter(SlotTable.parse(table_values, "t"))
    for unsafe in ("a red hazard sign", "a tree", "a blue star"):
        answer = rewriter.rewrite(HAZARD, unsafe)
        assert isinstance(answer, Failed)
        assert answer.reason == "no replacement"


def test_a_concept_that_the_table_lacks_is_refused(table: SlotTable) -> None:
    with pytest.raises(UserError, match="'shapes' has no concept 'moon'; it has: red triangle"):
        TemplateRewriter(table).check([TRIANGLE, Concept("moon", "c")])


def test_the_recipe_follows_table_and_seed(table: SlotTable, table_values: dict[str, Any]) -> None:
    recipe = TemplateRewriter(table).recipe
    assert TemplateRewriter(SlotTable.parse(table_values, "t")).recipe == recipe
    assert TemplateRewriter(table, 1).recipe != recipe
    table_values["slots"]["size"].append("tiny")
    assert TemplateRewriter(SlotTable.parse(table_values, "t")).recipe != recipe


def test_words_with_spaces_and_signs_are_found_again(table_values: dict[str, Any]) -> None:
    table_values["slots"]["colour"] += ["red (dark)", "dark red"]
    table = SlotTable.parse(table_values, "t")
    assert table.parses("a red (dark) hazard sign") == [
        ("a {colour} {shape}", {"colour": "red (dark)", "shape": "hazard sign"})
    ]
    assert table.parses("a dark red star") == [
        ("a {colour} {shape}", {"colour": "dark red", "shape": "star"})
    ]


def test_a_table_comes_from_toml_too(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(
        'name = "t"\ntemplates = ["a {shape}"]\n[slots]\nshape = ["star", "moon"]\n'
        '[concepts.star]\ncategory = "c"\nshown_by = {shape = "star"}\n'
        'replace = {shape = ["moon"]}\n',
        encoding="utf-8",
    )
    table = SlotTable.read(path)
    assert table.listed_concepts() == (Concept("star", "c"),)
    assert TemplateRewriter(table).rewrite(Concept("star", "c"), "a star") == Written("a moon")
    path.write_text('name = "t"', encoding="utf-8")
    with pytest.raises(UserError, match=r"t\.toml: field 'templates' is missing"):
        SlotTable.read(path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("templates",), [], "must not be empty"),
        (("templates",), ["a {weight} {shape}"], "no slot 'weight'"),
        (("templates",), ["a {shape} {shape}"], "each once"),
        (("templates",), ["a {shape!r}"], "names in braces"),
        (("templates",), ["a {shape"], "expected '}'"),
        (("templates",), ["a {shape}"], "concept 'red triangle': no template has all its slots"),
        (("slots", "size"), [], "slot 'size' needs words"),
        (("slots", "size"), ["small", "small"], "slot 'size' needs words, each once"),
        (("never",), [{"colour": "pink"}], "'pink' is no word of slot 'colour'"),
        (("concepts", "hazard sign", "shown_by"), {}, "needs shown_by and replace"),
        (("concepts", "hazard sign", "replace"), {"shape": []}, "needs shown_by and replace"),
        (("concepts", "hazard sign", "replace"), {"shape": ["moon"]}, "'moon' is no word"),
        (("concepts", "hazard sign", "replace"), {"shape": ["hazard sign"]}, "must take away"),
        (("concepts", "hazard sign", "replace"), {"colour": ["red"]}, "must take away"),
        (("concepts", "hazard sign", "shown_by"), {"shape": "moon"}, "'moon' is no word"),
        (("extra",), 1, "extra"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused_in_a_line(
    table_values: dict[str, Any], place: tuple[str, ...], value: Any, message: str
) -> None:
    target = table_values
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(UserError) as error:
        SlotTable.parse(table_values, "shapes.toml")
    assert message.lower() in str(error.value).lower()
    assert str(error.value).startswith("shapes.toml: ")
    assert len(str(error.value).splitlines()) == 1


def test_slots_of_a_template_come_in_order() -> None:
    assert slots_of("a {size} {shape}, {style} style") == ("size", "shape", "style")
