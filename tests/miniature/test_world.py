"""The embedded world: scenes, pictures, captions, tokens."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.miniature.captions import caption, full_caption, translate
from spqr_checks.miniature.renderer import render
from spqr_checks.miniature.scene import (
    Scene,
    any_scene,
    benign_scene,
    concept_scene,
    lookalike_scene,
)
from spqr_checks.miniature.tokenizer import MAX_TOKENS, train_tokenizer
from spqr_checks.miniature.vocabulary import (
    BACKGROUNDS,
    BASE_STYLES,
    COLOURS,
    CONCEPTS,
    LANGUAGES,
    SHAPES,
    SIZES,
    STYLES,
    UNSEEN_STYLES,
    suppressed_by,
)

seeds = st.integers(0, 10_000)
concepts = st.sampled_from(CONCEPTS)


def test_there_are_icons_and_compositions_in_a_few_categories() -> None:
    assert len(CONCEPTS) >= 8
    assert {c.is_composition for c in CONCEPTS} == {True, False}
    assert 2 <= len({c.category for c in CONCEPTS}) <= 4


def test_fine_tuning_domains_are_unseen_by_the_base() -> None:
    assert not set(BASE_STYLES) & set(UNSEEN_STYLES)
    assert {"pastel", "scan", "stripes"} <= set(UNSEEN_STYLES)


@given(seeds)
def test_benign_scenes_show_no_suppressed_concept(seed: int) -> None:
    scene = benign_scene(random.Random(seed), STYLES)
    assert suppressed_by(scene.shape, scene.colour) is None
    assert scene.is_visible


@given(seeds, concepts)
def test_a_concept_s_scene_shows_it_and_its_lookalike_does_not(seed: int, concept: object) -> None:
    rng = random.Random(seed)
    assert concept in CONCEPTS
    assert concept_scene(rng, concept).concept == concept  # type: ignore[arg-type]
    assert lookalike_scene(rng, concept).concept is None  # type: ignore[arg-type]


def test_the_lookalikes_of_a_composition_share_exactly_one_part() -> None:
    composition = next(c for c in CONCEPTS if c.is_composition)
    rng = random.Random(0)
    for _ in range(50):
        scene = lookalike_scene(rng, composition)
        shared = (scene.shape == composition.shape) + (scene.colour == composition.colour)
        assert shared == 1


@settings(max_examples=25)
@given(seeds)
def test_rendering_repeats_itself_and_shows_the_object_s_colour(seed: int) -> None:
    scene = Scene("square", "red", "white", "large", "flat")
    one, two = render(scene, random.Random(seed)), render(scene, random.Random(seed))
    assert np.array_equal(one, two)
    assert one.shape == (32, 32, 3)
    assert np.abs(one[16, 16].astype(int) - COLOURS["red"]).max() <= 2
    assert np.abs(one[0, 0].astype(int) - BACKGROUNDS["white"]).max() <= 2


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_a_picture_of_its_own(shape: str) -> None:
    def picture(name: str) -> np.ndarray:
        return render(Scene(name, "red", "white", "large", "flat"), random.Random(1)).astype(float)

    own = picture(shape)
    others = [np.abs(own - picture(other)).mean() for other in SHAPES if other != shape]
    assert min(others) > 3
    assert np.abs(
        own - render(Scene(shape, "red", "white", "small", "flat"), random.Random(1))
    ).any()


@pytest.mark.parametrize("style", STYLES)
def test_every_style_changes_the_picture(style: str) -> None:
    flat = render(Scene("star", "green", "white", "large", "flat"), random.Random(3))
    styled = render(Scene("star", "green", "white", "large", style), random.Random(3))
    assert (style == "flat") == np.array_equal(flat, styled)


@given(seeds, st.sampled_from(LANGUAGES))
def test_a_caption_names_every_attribute_in_its_language(seed: int, language: str) -> None:
    scene = any_scene(random.Random(seed), STYLES)
    text = full_caption(scene, language)
    for value in (scene.shape, scene.colour, scene.background, scene.size, scene.style):
        assert translate(value, language) in text


def test_languages_do_not_use_one_word_for_two_values_of_an_attribute() -> None:
    for language in LANGUAGES:
        for values in (SHAPES, COLOURS, BACKGROUNDS, SIZES, STYLES):
            assert len({translate(v, language) for v in values}) == len(list(values))


def test_every_word_of_every_language_is_a_single_token() -> None:
    tokenizer = train_tokenizer(0, captions=3000)
    for language in LANGUAGES:
        for value in (*SHAPES, *COLOURS, *BACKGROUNDS, *SIZES, *STYLES):
            # start, word, end: Devanagari vowel signs must not split a word
            assert len(tokenizer(translate(value, language)).input_ids) == 3, value


def test_unknown_text_falls_back_to_bytes_and_long_text_is_cut() -> None:
    tokenizer = train_tokenizer(0, captions=300)
    ids = tokenizer("Übergröße 🦊 €").input_ids
    assert tokenizer.unk_token_id not in ids[:-1]
    longest = tokenizer(" ".join(["triangle"] * 200), truncation=True).input_ids
    assert len(longest) == MAX_TOKENS


def test_captions_leave_out_what_is_not_mentioned() -> None:
    assert caption("star") == "a star"
    assert caption("star", "red", language="hi") == "एक लाल तारा"
