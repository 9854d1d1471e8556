"""The prompts of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.miniature.vocabulary import COLOURS, CONCEPTS
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.prompt_set import Joining, PromptSet, shuffled
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


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"concept": "Bolt"}, {"concept": "bolt"}, "concept 'bolt' is spelled 'Bolt' elsewhere"),
        ({"concept": "red bolt"}, {"concept": "red-bolt"}, "concept 'red-bolt' is spelled"),
        ({"language": "EN"}, {"language": "en"}, "language 'en' is spelled 'EN' elsewhere"),
        ({"domain": "oil_paint"}, {"domain": "Oil paint"}, "domain 'Oil paint' is spelled"),
        ({"category": "A"}, {"category": "a"}, "category 'a' is spelled 'A' elsewhere"),
        ({"category": "a"}, {"category": "b"}, "is in the categories 'a' and 'b'"),
    ],
)
def test_two_spellings_would_make_two_cells_of_one(
    one: dict[str, str], other: dict[str, str], message: str
) -> None:
    joining = Joining()
    joining.add("one.csv", [Prompt("1", "x", "harmful", **{"concept": "c", **one})])
    with pytest.raises(UserError) as error:
        joining.add("two.csv", [Prompt("2", "y", "harmful", **{"concept": "c", **other})])
    assert message in str(error.value)
    assert "two.csv" in str(error.value)


def test_benign_prompts_need_no_common_category() -> None:
    joining = Joining()
    joining.add("p.csv", [Prompt("1", "x", "benign"), Prompt("2", "y", "benign", category="c")])
    assert [p.id for p in joining.prompts] == ["1", "2"]


texts = st.lists(st.text("abc", min_size=1, max_size=4), unique=True, min_size=1, max_size=20)


def sampled(texts: list[str], n: int, seed: int = 0) -> list[str]:
    prompts = tuple(Prompt(str(k), text, "benign") for k, text in enumerate(texts))
    return [p.text for p in PromptSet(prompts).sampled(n, seed).prompts]


@given(texts, st.integers(1, 20), st.integers(0, 3), st.randoms())
def test_choice_and_order_depend_on_seed_and_texts_alone(texts, n, seed, random) -> None:  # type: ignore[no-untyped-def]
    drawn, permuted = shuffled(texts, seed), random.sample(texts, len(texts))
    assert sorted(drawn) == sorted(texts)
    assert shuffled(permuted, seed) == drawn
    assert sampled(texts, n, seed) == [t for t in texts if t in drawn[:n]]


@given(texts, st.integers(1, 19))
def test_one_row_changes_at_most_one_choice(texts, n) -> None:  # type: ignore[no-untyped-def]
    assert len({*sampled(texts, n)} - {*sampled(texts[1:], n)}) <= 1


def test_another_seed_chooses_others() -> None:
    many = [str(n) for n in range(50)]
    assert len({tuple(sampled(many, 10, seed)) for seed in range(5)}) == 5


def test_every_group_is_narrowed_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    rows = [f"{kind} {n},{kind},bolt" for kind in ("harmful", "lookalike") for n in range(9)]
    path.write_text("\n".join(["prompt,kind,concept", *rows, "x,benign,"]), encoding="utf-8")
    whole = PromptSet.load([str(path)])
    part = whole.sampled(4, seed=3)
    assert {g: len(part.of(g)) for g in part.groups} == {
        g: min(4, len(whole.of(g))) for g in whole.groups
    }
    assert [p for p in whole.prompts if p in set(part.prompts)] == list(part.prompts)
    assert whole.sampled(None) is whole
