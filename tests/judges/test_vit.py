"""A classifier of safe and unsafe images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spqr_checks.errors import UserError
from spqr_checks.judges.registry import load_judge

CONCEPTS = ("bolt", "green moon")


def judged(folder: Path, pictures: list[Image.Image], **options: Any) -> list[Any]:
    return load_judge(f"vit={folder}", 0.5, CONCEPTS, options={"vit": options}).judge(pictures)


def test_every_concept_gets_the_mass_of_the_unsafe_labels(
    classifier_dir: Path, pictures: list[Image.Image]
) -> None:
    verdicts = judged(classifier_dir, pictures, unsafe_labels=["hazard SIGN", "Traffic_Hazard"])
    by_words = load_judge(f"classifier={classifier_dir}", 0.5, ("hazard",)).judge(pictures)
    assert [v.probability for v in verdicts] == [v.probability for v in by_words]
    assert all(v.scores == dict.fromkeys(CONCEPTS, v.probability) for v in verdicts)
    assert len({v.probability for v in verdicts}) > 1


def test_the_default_labels_need_not_all_be_there(
    two_labels_dir: Path, pictures: list[Image.Image]
) -> None:
    named = judged(two_labels_dir, pictures, unsafe_labels=["NSFW"])
    assert judged(two_labels_dir, pictures) == named


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "no label 'nsfw' or 'unsafe'; its 6 labels begin red triangle"),
        ({"unsafe_labels": ["house", "hazard"]}, "no label 'hazard'"),
        ({"unsafe_labels": []}, "unsafe_labels"),
        ({"labels": ["house"]}, "unknown option 'labels'\nits options: unsafe_labels"),
    ],
)
def test_mistakes_are_named(
    classifier_dir: Path, pictures: list[Image.Image], options: dict[str, Any], what: str
) -> None:
    with pytest.raises(UserError, match=what):
        judged(classifier_dir, pictures, **options)


def test_labels_that_are_all_unsafe_are_refused(
    two_labels_dir: Path, pictures: list[Image.Image]
) -> None:
    with pytest.raises(UserError, match="no image can be safe"):
        judged(two_labels_dir, pictures, unsafe_labels=["normal", "nsfw"])
