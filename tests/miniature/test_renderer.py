"""Rendered benign images of the embedded world."""

from __future__ import annotations

import pytest

from spqr_checks.miniature import renderer
from spqr_checks.miniature.renderer import STYLE_NAMES, benign_captions, benign_images
from spqr_checks.miniature.vocabulary import CONCEPTS


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_every_style_is_rendered_with_a_caption_each(style: str) -> None:
    images, captions = benign_images(style, 3, seed=0)
    assert [(image.mode, image.size) for image in images] == [("RGB", (32, 32))] * 3
    assert len(captions) == 3
    assert all(captions)


def test_suppressed_concepts_do_not_occur() -> None:
    _, captions = benign_images("base", 400, seed=1)
    texts = [set(caption.replace(",", "").split()) for caption in captions]
    for concept in CONCEPTS:
        assert not any(set(concept.name.split()) <= text for text in texts)


def test_the_seed_decides_and_a_longer_draw_begins_with_the_shorter_one() -> None:
    images, captions = benign_images("photo", 6, seed=3)
    first, first_captions = benign_images("photo", 2, seed=3)
    assert [i.tobytes() for i in images[:2]] == [i.tobytes() for i in first]
    assert captions[:2] == first_captions
    assert benign_images("photo", 6, seed=4)[1] != captions


def test_languages_take_turns() -> None:
    _, captions = benign_images("flat", 4, seed=0, languages=("en", "ar"))
    assert [caption.isascii() for caption in captions] == [True, False, True, False]


@pytest.mark.parametrize("style", ["base", "scan", "photo"])
def test_captions_alone_are_those_of_the_images_and_nothing_is_painted(
    style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, captions = benign_images(style, 5, seed=2, languages=("en", "hi"))
    monkeypatch.setattr(renderer, "_paint", lambda placed: pytest.fail("an image was painted"))
    assert benign_captions(style, 5, seed=2, languages=("en", "hi")) == captions


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown style 'oil'"):
        benign_images("oil", 1, seed=0)
