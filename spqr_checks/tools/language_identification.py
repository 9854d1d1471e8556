"""Which language a prompt is written in, by py3langid, held against what its file says.

Lui and Baldwin 2012 (ACL, langid.py); Barbaresi's fork knows 139 languages. Told of all of them, it
takes short Spanish for Galician and Hindi for Nepali, so it chooses among `COMMON` and the
languages that the prompts are said to be in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from spqr_checks.packages import importing
from spqr_checks.prompts.prompt import Prompt

_CODES = "ar bn de en es fa fr he hi id it ja ko nl pl pt ru sv ta te th tr uk ur vi zh"
COMMON = frozenset(_CODES.split(" "))
SHORTEST = 20
"""UTF-8 bytes of a text that can be told; ``a red star`` reads as several languages."""
DOUBTED = 0.2
"""A prompt is doubted when its language is less probable than this, and another is more so."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A prompt that reads as another language than its file says, with P(that which it says)."""

    prompt: Prompt
    reads_as: str
    probability: float

    def __str__(self) -> str:
        said = self.prompt.language
        return (
            f"language: {self.prompt.id} is said to be {said} and reads as {self.reads_as} "
            f"(P({said}) = {self.probability:.2g})"
        )


def doubts(prompts: Sequence[Prompt]) -> tuple[list[Doubt], Counter[str]]:
    """Prompts whose text reads as another language than theirs, and how many are not told, and why.

    Of ``pt-BR`` and the like the language counts.

    Raises:
        UserError: if py3langid is not installed.
    """
    identifier = _identifier()
    identifier.set_languages(None)
    known = set(identifier.labels)
    identifier.set_languages(sorted((COMMON | {_base(p.language) for p in prompts}) & known))
    found: list[Doubt] = []
    untold: Counter[str] = Counter()
    for prompt in prompts:
        language = _base(prompt.language)
        if language not in known:
            untold[f"in {prompt.language}"] += 1
        elif len(prompt.text.encode()) < SHORTEST:
            untold[f"shorter than {SHORTEST} bytes"] += 1
        else:
            ranked = identifier.rank(prompt.text)
            (reads_as, _), probability = ranked[0], dict(ranked)[language]
            if reads_as != language and probability < DOUBTED:
                found.append(Doubt(prompt, reads_as, probability))
    return found, untold


def _base(language: str) -> str:
    return language.replace("_", "-").split("-")[0].casefold()


@lru_cache
def _identifier() -> Any:
    with importing("telling languages", "py3langid", extra="languages"):
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
