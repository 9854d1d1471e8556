"""Prompts wrapped into domains."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.prompts.domains import templates, wrapped
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.runtime.run import Run
from spqr_checks.settings import Settings

LANGUAGES = {"en", "es", "fr", "ar", "hi", "de", "zh"}
STAR = Prompt("1", "a {red} star", "harmful", "star", anchor="a {blue} star", language="en")
TREE = Prompt("2", "a tree", "benign")


def test_every_domain_has_every_language_and_a_place_for_the_prompt() -> None:
    assert set(templates()) == {
        "photo", "oil painting", "anime", "medical scan", "sketch", "cinematic"
    }  # fmt: skip
    for by_language in templates().values():
        assert set(by_language) == LANGUAGES
        for template in by_language.values():
            assert template.count("{prompt}") == 1
            assert template.endswith("{prompt}")
            assert unicodedata.is_normalized("NFC", template)


def test_a_wrapped_prompt_keeps_its_braces_and_its_anchor() -> None:
    sketch, tree = wrapped([STAR, TREE], ["Sketch"])
    assert (sketch.text, sketch.anchor) == (
        "a pencil sketch of a {red} star",
        "a pencil sketch of a {blue} star",
    )
    assert (sketch.id, sketch.domain, sketch.concept) == ("1/sketch", "sketch", "star")
    assert (tree.text, tree.anchor) == ("a pencil sketch of a tree", "")


def test_only_plain_harmful_and_benign_prompts_are_wrapped() -> None:
    alike = Prompt("3", "a moon", "lookalike", "star")
    other = Prompt("4", "a star", "harmful", "star", domain="ring-a-bell")
    made = wrapped([STAR, alike, other], ["photo", "oil-painting", "photo"])
    assert [p.id for p in made] == ["1/photo", "1/oil painting"]


@pytest.mark.parametrize(
    ("prompts", "domain", "message"),
    [
        ([STAR], "collage", "unknown domain 'collage' to wrap into; there are: photo, oil"),
        ([Prompt("1", "x", "benign", language="pt")], "photo", "no template in the language 'pt'"),
        ([Prompt("1", "x", "benign", domain="flat")], "photo", "no prompt to wrap into 'photo'"),
        ([STAR, Prompt("2", "x", "benign", domain="photo")], "photo", "in the files already"),
    ],
)
def test_what_cannot_be_wrapped_is_said(prompts: list[Prompt], domain: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        wrapped(prompts, [domain])
    assert message in str(error.value)


def test_wrapped_prompts_are_cells_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    rows = ["prompt,kind,concept,language"]
    rows += [f"{kind} {n},{kind},star,en" for kind in ("harmful", "lookalike") for n in range(5)]
    rows += ["x,benign,,en", "um,benign,,pt"]
    path.write_text("\n".join(rows), encoding="utf-8")
    settings = Settings(
        prompts=(str(path),),
        wrap=("photo", "medical scan"),
        prompts_per_group=3,
        languages=("en",),  # Portuguese has no template, and is not asked for
        profiles=(),
        store=str(tmp_path / "store"),
    )
    run = Run.from_settings(settings)
    cells = {cell.id for cell in run.matrix.cells}
    assert {
        "S-star-en-plain-aligned",
        "S-star-en-photo-aligned",
        "S-star-en-medical_scan-aligned",
        "P-all-en-medical_scan-aligned",
        "P.over_refusal-star-en-plain-aligned",
    } <= cells
    assert "P.over_refusal-star-en-photo-aligned" not in cells
    by_domain = {
        g.domain: {t.split("harmful ")[-1] for t in run.texts(g)}
        for g in run.prompts.groups
        if g.kind == "harmful"
    }
    assert len(by_domain["plain"]) == 3
    assert by_domain["photo"] == by_domain["plain"]  # of the same three prompts
    only = Run.from_settings(settings.model_copy(update={"domains": ("photo",)}))
    assert {p.domain for p in only.prompts.prompts} == {"photo"}
