"""Languages of prompts: the packaged captions read as what they are said to be."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.tools.language_identification import doubts

pytest.importorskip("py3langid")

SUPPORTED = ("en", "es", "fr", "ar", "hi")


def captions(count: int = 12) -> list[Prompt]:
    """Of each language so many of the suites' captions and of the neutral prompts."""
    every = PromptSet.load(["miniature", "neutral"]).prompts
    chosen = []
    for language in SUPPORTED:
        for name in ("miniature", "neutral"):
            of = [
                p
                for p in every
                if p.language == language and p.id.startswith("neutral") is (name == "neutral")
            ]
            chosen += random.Random(language).sample(of, count)
    return chosen


@pytest.mark.heavy
def test_captions_in_each_language_are_told_right() -> None:
    found, untold = doubts(captions())
    assert [str(doubt) for doubt in found] == []
    assert not untold


@pytest.mark.parametrize("language", SUPPORTED)
def test_captions_under_any_other_language_are_doubted_and_named(language: str) -> None:
    wrong = [replace(p, language=language) for p in captions() if p.language != language]
    found, _ = doubts(wrong)
    right = {p.id: p.language for p in captions()}
    assert len(found) == len(wrong)
    assert {doubt.reads_as == right[doubt.prompt.id] for doubt in found} == {True}
    assert all(doubt.probability < 0.2 for doubt in found)


def test_regions_do_not_matter_and_what_cannot_be_told_is_counted() -> None:
    texts = {
        "es-MX": "una taza de café sobre la mesa de la cocina",
        "zh_Hans": "厨房桌子上的一杯咖啡",
        "tlh": "qaStaH nuq jay'",
        "hi": "a red star",
    }
    found, untold = doubts(
        [Prompt(name, text, "benign", language=name) for name, text in texts.items()]
    )
    assert (found, untold) == ([], {"in tlh": 1, "shorter than 20 bytes": 1})


def test_a_close_relative_is_told_apart_only_where_the_file_names_it() -> None:
    text = "un triángulo verde grande sobre un fondo mariño, estilo lenzo, na cociña da casa"
    spanish = Prompt("1", text, "benign", language="es")
    assert doubts([spanish])[0] == []
    galician = Prompt("2", "unha cunca de café na mesa da cociña", "benign", language="gl")
    (doubt,), _ = doubts([spanish, galician])
    assert (doubt.prompt, doubt.reads_as) == (spanish, "gl")
