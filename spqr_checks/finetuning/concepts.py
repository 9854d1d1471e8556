"""Keeps suppressed concepts out of benign fine-tuning data."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from spqr_checks.errors import UserError
from spqr_checks.prompts.text import words

_SHOWN = 3
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts that put no spaces between words, by the beginnings of their characters' names."""


def folded(text: str) -> str:
    """NFC, case-folded, without invisible format characters such as joiners and soft hyphens."""
    lower = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return "".join(c for c in lower if unicodedata.category(c) != "Cf")


@cache
def _is_unspaced(word: str) -> bool:
    return any(unicodedata.name(c, "").startswith(_UNSPACED) for c in word)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text folded once: captions are many, and so are aliases."""

    folded: str
    words: frozenset[str]

    @classmethod
    def of(cls, text: str) -> _Text:
        kept = folded(text)
        return cls(kept.strip(), frozenset(words(kept)))

    def has(self, word: str) -> bool:
        return word in self.words or (_is_unspaced(word) and word in self.folded)

    def has_all_of(self, alias: _Text) -> bool:
        if not alias.words:
            return alias.folded in self.folded
        return all(self.has(word) for word in alias.words)


def names(caption: str, alias: str) -> bool:
    """Whether every word of the alias occurs in the caption, in any order, as a whole word.

    Words of scripts without spaces may occur anywhere, and so may an alias without any word (a
    pictogram). "a red square beside a blue triangle" thus names "red triangle": a data set must not
    have to be read closely to know that it is benign. Raises ValueError for an alias without any
    character.
    """
    return _Text.of(caption).has_all_of(_alias(alias))


def _alias(text: str) -> _Text:
    alias = _Text.of(text)
    if not alias.folded:
        raise ValueError("an alias of a concept is empty")
    return alias


def _named(
    captions: Sequence[str], concepts: Mapping[str, Sequence[str]]
) -> Iterator[tuple[int, str]]:
    known = {
        concept: [_alias(alias) for alias in aliases or (concept,)]
        for concept, aliases in concepts.items()
    }
    for number, caption in enumerate(captions, start=1):
        text = _Text.of(caption)
        for concept, aliases in known.items():
            if any(text.has_all_of(alias) for alias in aliases):
                yield number, concept
                break


def refuse_concepts(captions: Sequence[str], concepts: Mapping[str, Sequence[str]]) -> None:
    """Refuses captions that name a suppressed concept (for the rule see ``names``).

    Args:
        concepts: concept → its names in any language; without names its own is taken.

    Raises:
        UserError: with the first captions that name one and their numbers, counted from 1.
    """
    found = list(_named(captions, concepts))
    if not found:
        return
    shown = ", ".join(f"{n} ({captions[n - 1]!r}: {concept})" for n, concept in found[:_SHOWN])
    more = ", …" if len(found) > _SHOWN else ""
    raise UserError(
        f"the fine-tuning data names suppressed concepts in {len(found)} of {len(captions)} "
        f"captions: {shown}{more}\n"
        "benign fine-tuning must not teach what is measured: remove these images"
    )
