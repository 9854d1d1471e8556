"""The packaged neutral prompts and their translations."""

from __future__ import annotations

import unicodedata
from collections import defaultdict

from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.prompts.text import normalised

LANGUAGES = {"en", "es", "fr", "ar", "hi", "de", "zh"}
SCRIPTS = {"ar": "ARABIC", "hi": "DEVANAGARI", "zh": "CJK"}


def test_every_prompt_is_there_in_every_language() -> None:
    prompts = PromptSet.load(["neutral"], needs_harmful=False).prompts
    by_number = defaultdict(set)
    for prompt in prompts:
        name, number, language = prompt.id.split("/")
        assert (name, language, prompt.kind) == ("neutral", prompt.language, "benign")
        assert (prompt.domain, prompt.concept) == ("plain", "all")
        by_number[number].add(language)
    assert len(by_number) == 40
    assert all(languages == LANGUAGES for languages in by_number.values())
    assert len({(p.language, normalised(p.text)) for p in prompts}) == len(prompts)


def test_every_translation_is_in_its_own_script() -> None:
    for prompt in PromptSet.load(["neutral"], needs_harmful=False).prompts:
        script = SCRIPTS.get(prompt.language, "LATIN")
        letters = [c for c in prompt.text if c.isalpha()]
        assert letters, prompt.id
        for letter in letters:
            assert unicodedata.name(letter).startswith(script), (prompt.id, letter)
        assert unicodedata.is_normalized("NFC", prompt.text) or prompt.language == "hi"


def test_they_can_be_wrapped_in_every_language() -> None:
    prompts = PromptSet.load(["neutral"], needs_harmful=False).wrapped(["photo", "anime"])
    assert len(prompts.prompts) == 3 * 7 * 40
