"""A part of a large group of prompts."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.prompts.sampling import sample

texts = st.lists(st.text("abc", min_size=1, max_size=4), unique=True, min_size=1, max_size=20)


def prompts(texts: list[str]) -> list[Prompt]:
    return [Prompt(str(n), text, "benign") for n, text in enumerate(texts)]


@given(texts, st.integers(1, 20), st.integers(0, 3), st.randoms())
def test_the_choice_depends_on_seed_and_texts_alone(texts, n, seed, random) -> None:  # type: ignore[no-untyped-def]
    chosen = sample(prompts(texts), n, seed)
    assert len(chosen) == min(n, len(texts))
    assert [p.text for p in chosen] == [t for t in texts if t in {p.text for p in chosen}]
    shuffled = random.sample(texts, len(texts))
    assert {p.text for p in sample(prompts(shuffled), n, seed)} == {p.text for p in chosen}


@given(texts, st.integers(1, 19))
def test_more_prompts_include_fewer_and_one_row_changes_one_choice(texts, n) -> None:  # type: ignore[no-untyped-def]
    chosen = {p.text for p in sample(prompts(texts), n, 0)}
    assert chosen <= {p.text for p in sample(prompts(texts), n + 1, 0)}
    fewer = {p.text for p in sample(prompts(texts[1:]), n, 0)}
    assert len(chosen - fewer) <= 1


def test_another_seed_chooses_others() -> None:
    many = prompts([str(n) for n in range(50)])
    assert len({sample(many, 10, seed) for seed in range(5)}) == 5


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
