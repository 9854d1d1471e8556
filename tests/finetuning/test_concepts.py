"""Benign data never name what is suppressed, in any language."""

from __future__ import annotations

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.finetuning.concepts import folded, names, refuse_concepts
from spqr_checks.miniature.captions import full_caption, random_caption, translate
from spqr_checks.miniature.scene import benign_scene, concept_scene
from spqr_checks.miniature.vocabulary import CONCEPTS, LANGUAGES, STYLES
from spqr_checks.prompts.text import words


@pytest.mark.parametrize(
    ("caption", "alias"),
    [
        ("a hazard sign on a wall", "hazard"),
        ("A HAZARD sign, photo", "hazard"),
        ("a small red triangle", "red triangle"),
        ("a red, rather large triangle", "red triangle"),
        ("a red square beside a blue triangle", "red triangle"),
        ("un triángulo rojo", "triángulo rojo"),
        (unicodedata.normalize("NFD", "un triángulo rojo"), "TRIÁNGULO rojo"),
        ("एक छोटा लाल त्रिभुज", "लाल त्रिभुज"),
        ("مثلث أحمر على خلفية بيضاء", "مثلث أحمر"),
        (unicodedata.normalize("NFD", "مثلث أحمر"), "مثلث أحمر"),
        ("مُثَلَّث", "مُثَلَّث"),
        ("eine große STRASSE", "straße"),
        ("a haz\u00adard sign", "hazard"),
        ("这是一个红色三角形。", "红色三角形"),
        ("a ⚠ on a wall", "⚠"),
        ("ⅹ hazard-sign", "hazard sign"),
    ],
)
def test_a_caption_names_a_concept_if_every_word_of_an_alias_occurs(
    caption: str, alias: str
) -> None:
    assert names(caption, alias)


@pytest.mark.parametrize(
    ("caption", "alias"),
    [
        ("a haphazard heap", "hazard"),
        ("hazards", "hazard"),
        ("a red square", "red triangle"),
        ("a coloured triangle", "red triangle"),
        # a vowel sign makes another word: दिल (heart) is not दाल, and is not contained in दिलदार
        ("एक दाल", "दिल"),
        ("एक दिलदार", "दिल"),
        ("दल", "दिल"),
        # and so do harakat
        ("مَثَل", "مثل"),
        ("triangulo rojo", "triángulo rojo"),
        ("a wall", "⚠"),
    ],
)
def test_parts_of_words_and_other_words_do_not_name_it(caption: str, alias: str) -> None:
    assert not names(caption, alias)


def test_words_keep_their_combining_marks() -> None:
    assert words(folded("एक लाल त्रिभुज, मُ")) == ["एक", "लाल", "त्रिभुज", "मُ"]


@given(st.lists(st.sampled_from(["a", "red", "blue", "triangle", "त्रिभुज", "مثلث"]), max_size=8))
def test_the_order_of_words_does_not_matter(parts: list[str]) -> None:
    expected = {"red", "triangle"} <= set(parts)
    assert names(" ".join(parts), "red triangle") == expected
    assert names(" ".join(reversed(parts)), "triangle red") == expected


def test_the_refusal_names_the_first_captions_and_their_numbers() -> None:
    captions = ["a house", "a red triangle", "a tree", "un triángulo rojo", "x", "a hazard"]
    concepts = {"red triangle": ["red triangle", "triángulo rojo"], "hazard": ["hazard"]}
    with pytest.raises(UserError) as caught:
        refuse_concepts(captions, concepts)
    message = str(caught.value)
    assert "in 3 of 6 captions" in message
    assert "2 ('a red triangle': red triangle)" in message
    assert "4 ('un triángulo rojo': red triangle)" in message
    assert "6 ('a hazard': hazard)" in message
    assert "remove" in message


def test_only_the_first_three_are_shown() -> None:
    with pytest.raises(UserError, match=r"in 5 of 5 .* 1 .* 2 .* 3 \('a bolt': bolt\), …\n"):
        refuse_concepts(["a bolt"] * 5, {"bolt": ["bolt"]})


def test_a_concept_without_aliases_goes_by_its_own_name() -> None:
    with pytest.raises(UserError, match="bolt"):
        refuse_concepts(["a bolt"], {"bolt": []})


def test_an_empty_alias_is_refused_since_it_would_mean_nothing_or_everything() -> None:
    with pytest.raises(ValueError, match="empty"):
        refuse_concepts(["a house"], {"bolt": ["bolt", " "]})


def test_benign_captions_pass() -> None:
    refuse_concepts(["a red house", "a blue triangle", ""], {"red triangle": ["red triangle"]})


def _aliases() -> dict[str, list[str]]:
    return {
        concept.name: [
            " ".join(translate(word, language) for word in concept.name.split())
            for language in LANGUAGES
        ]
        for concept in CONCEPTS
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_benign_scenes_of_the_embedded_world_pass_and_its_concepts_do_not(language: str) -> None:
    rng = random.Random(0)
    benign = [random_caption(rng, benign_scene(rng, STYLES), language) for _ in range(300)]
    refuse_concepts(benign, _aliases())
    for concept in CONCEPTS:
        with pytest.raises(UserError, match=concept.name):
            refuse_concepts([full_caption(concept_scene(rng, concept), language)], _aliases())
