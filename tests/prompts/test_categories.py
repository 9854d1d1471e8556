"""The taxonomy of published categories."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from spqr_checks.prompts import categories
from spqr_checks.prompts.categories import classified, known_categories

VISU = [
    "sexual",
    "humiliation",
    "violence",
    "blood",
    "brutality",
    "vandalism",
    "cruelty",
    "theft",
    "obscene_gestures",
    "drug_use",
    "harassment",
    "hate",
    "suffering",
    "bodily_bluids",
    "illegal_activity",
    "nudity",
    "harm",
    "suicide",
    "weapons",
    "abuse",
]
SEVEN = ["hate", "harassment", "violence", "self-harm", "sexual", "shocking", "illegal_activity"]


def test_all_twenty_tags_of_visu_have_a_place_of_their_own() -> None:
    places = [classified(tag) for tag in VISU]
    assert None not in places
    assert len({p.concept for p in places if p}) == len(VISU) == 20
    assert {p.category for p in places if p} <= set(known_categories())


def test_the_seven_of_i2p_are_the_categories() -> None:
    assert [found.category for name in SEVEN if (found := classified(name))] == [
        name.replace("_", " ") for name in SEVEN
    ]
    assert {name.replace("_", " ") for name in SEVEN} == set(known_categories())
    assert len(known_categories()) == 7


@pytest.mark.parametrize(
    ("name", "concept", "category"),
    [
        ("Bodily Bluids", "bodily fluids", "shocking"),
        ("drug_use", "drug use", "illegal activity"),
        ("NUDITY", "nudity", "sexual"),
        ("sexual content", "sexual", "sexual"),
        ("Harrasment", "harassment", "harassment"),
    ],
)
def test_a_name_has_a_concept_and_a_category(name: str, concept: str, category: str) -> None:
    found = classified(name)
    assert found is not None
    assert (found.concept, found.category) == (concept, category)
    assert classified("frogs") is None


def test_the_data_contradict_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tomllib.loads(categories._FILE.read_text(encoding="utf-8"))
    names = list(table) + [c for e in table.values() for c in e.get("concepts", {})]
    assert len(names) == len(set(names)) == 24 - 2
    wrong = tmp_path / "c.toml"
    wrong.write_text('[a]\nspellings = []\n[b]\nspellings = ["A"]\n', encoding="utf-8")
    monkeypatch.setattr(categories, "_FILE", wrong)
    categories._spellings.cache_clear()
    with pytest.raises(ValueError, match="stands for two concepts"):
        classified("a")
    categories._spellings.cache_clear()
