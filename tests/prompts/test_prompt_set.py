"""The prompts of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.miniature.vocabulary import COLOURS, CONCEPTS
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.prompts.sources import packaged_names

HEADER = "id,prompt,kind,concept,category\n"


def test_the_packaged_set_holds_every_concept_in_every_language_and_domain() -> None:
    prompts = PromptSet.load(["miniature"])
    harmful = [g for g in prompts.groups if g.kind == "harmful"]
    assert len(prompts.concepts) >= 8
    assert 2 <= len(set(prompts.categories.values())) <= 4
    assert len(harmful) == len(prompts.concepts) * 5 * 3
    assert "miniature" in packaged_names()


@pytest.mark.parametrize("name", ["miniature-alignment", "miniature-neighbours"])
def test_methods_do_not_learn_from_the_prompts_of_the_suites(name: str) -> None:
    suites = {p.text for p in PromptSet.load(["miniature"]).prompts}
    training = {p.text for p in PromptSet.load([name], needs_harmful=False).prompts}
    assert not suites & training


def test_the_neighbours_show_a_composition_s_shape_in_every_other_colour() -> None:
    prompts = PromptSet.load(["miniature-neighbours"], needs_harmful=False).prompts
    assert {p.kind for p in prompts} == {"lookalike"}
    for concept in filter(lambda c: c.is_composition, CONCEPTS):
        texts = [p.text for p in prompts if (p.concept, p.language) == (concept.name, "en")]
        assert all(concept.shape in text for text in texts)
        for colour in set(COLOURS) - {concept.colour}:
            assert sum(colour in text.partition(concept.shape)[0] for text in texts) >= 12


def test_no_benign_prompt_or_anchor_asks_for_a_suppressed_composition() -> None:
    for name in packaged_names():
        prompts = PromptSet.load([name], needs_harmful=False)
        for prompt in prompts.prompts:
            texts = [prompt.anchor] if prompt.kind == "harmful" else [prompt.text]
            for text in texts:
                if prompt.language == "en":
                    words = set(text.replace(",", "").split())
                    assert not any(set(c.split()) <= words for c in prompts.concepts), text


def test_a_category_stands_for_its_concepts() -> None:
    prompts = PromptSet.load(["miniature"]).narrowed(concepts=["tokens"], languages=["en"])
    assert prompts.concepts == ("green moon", "purple heart")
    assert {p.language for p in prompts.prompts} == {"en"}
    assert any(p.kind == "benign" for p in prompts.prompts)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"concepts": ["unicorn"]}, "unknown concept or category 'unicorn'; there are: banner"),
        ({"languages": ["de"]}, "unknown language 'de'; the prompts have: ar, en"),
        ({"domains": ["oil"]}, "unknown domain 'oil'; the prompts have: canvas"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(
    chosen: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(UserError) as error:
        PromptSet.load(["miniature"]).narrowed(**chosen)
    assert message in str(error.value)


def test_files_must_not_contradict_each_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text(HEADER + "1,x,harmful,hazard,signs\n", encoding="utf-8")
    two.write_text(HEADER + "1,y,harmful,hazard,signs\n", encoding="utf-8")
    with pytest.raises(UserError, match="id '1' is in both"):
        PromptSet.load([str(one), str(two)])
    two.write_text(HEADER + "2,y,harmful,hazard,warnings\n", encoding="utf-8")
    with pytest.raises(UserError, match="'hazard' is in the categories"):
        PromptSet.load([str(one), str(two)])


def test_a_set_without_harmful_prompts_cannot_measure_safety(tmp_path: Path) -> None:
    path = tmp_path / "benign.csv"
    path.write_text(HEADER + "1,x,benign,,\n", encoding="utf-8")
    with pytest.raises(UserError, match="no prompts of kind 'harmful'"):
        PromptSet.load([str(path)])


def test_an_unknown_set_is_answered_with_the_packaged_ones() -> None:
    with pytest.raises(UserError, match="unknown prompt set 'coco': .*miniature"):
        PromptSet.load(["coco"])
