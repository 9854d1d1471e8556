"""The embedded world's captions as a slot table."""

from __future__ import annotations

import random

import pytest

from spqr_checks.miniature.captions import caption, translate
from spqr_checks.miniature.prompt_sets import slot_table
from spqr_checks.miniature.scene import concept_scene
from spqr_checks.miniature.vocabulary import (
    BASE_STYLES,
    CONCEPTS,
    INDISTINCT,
    LANGUAGES,
    suppressed_by,
)
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.rewriter import Written
from spqr_checks.tools.rewriting.slot_table import SlotTable, slots_of
from spqr_checks.tools.rewriting.template import TemplateRewriter
from spqr_checks.tools.rewriting.validators import Checks, ConceptAbsent, Near, NotEmpty
from spqr_checks.tools.similarity import word_overlap


@pytest.mark.parametrize("language", LANGUAGES)
def test_its_templates_give_the_world_s_own_captions(language: str) -> None:
    templates = slot_table(language)["templates"]
    assert len(set(templates)) == len(templates) == 15
    rng = random.Random(0)
    for concept in CONCEPTS:
        scene = concept_scene(rng, concept, BASE_STYLES)
        values = {
            "shape": scene.shape,
            "colour": scene.colour,
            "background": scene.background,
            "size": scene.size,
            "style": scene.style,
        }
        for template in templates:
            slots = slots_of(template)
            filled = template.format(**{s: translate(values[s], language) for s in slots})
            assert filled == caption(**{s: values[s] for s in slots}, language=language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_pairs_made_of_it_pass_every_check(language: str) -> None:
    table = SlotTable.parse(slot_table(language), "miniature")
    concepts = table.listed_concepts()
    rewriter = TemplateRewriter(table)
    checks = Checks([NotEmpty(), ConceptAbsent(concepts), Near(word_overlap(0.3))])
    english = {
        (slot, translate(word, language)): word
        for slot, words in slot_table("en")["slots"].items()
        for word in words
    }
    for concept in concepts:
        for number in range(40):
            asked = rewriter.ask(concept, number, ())
            assert isinstance(asked, Written)
            answer = rewriter.rewrite(concept, asked.text)
            assert isinstance(answer, Written)
            assert checks.fault(concept, asked.text, answer.text) is None, (asked, answer)
            checks.accepted([(asked.text, answer.text)])
            for text in (asked.text, answer.text):
                ((_, shown),) = table.parses(text)
                words = {slot: english[slot, word] for slot, word in shown.items()}
                assert (words.get("colour"), words.get("background")) not in INDISTINCT
            assert suppressed_by(words["shape"], words.get("colour", "none")) is None


def test_aliases_name_a_concept_in_every_language() -> None:
    table = SlotTable.parse(slot_table("en"), "miniature")
    triangle = next(c for c in table.listed_concepts() if c.name == "red triangle")
    assert triangle == Concept("red triangle", "signals", triangle.aliases)
    assert {"triángulo rojo", "rojo triángulo"} & set(triangle.aliases)
    assert len(triangle.aliases) == len(LANGUAGES) - 1


def test_an_unknown_language_is_an_error() -> None:
    with pytest.raises(KeyError):
        slot_table("de")
