"""Texts compared and tidied: what counts as the same prompt."""

from __future__ import annotations

import unicodedata


def one_line(text: str) -> str:
    """The text with every run of white space, line breaks included, as one space."""
    return " ".join(text.split())


def normalised(text: str) -> str:
    """NFC, case-folded, white space collapsed: equal for prompts that differ in nothing else."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return one_line(folded)


def is_blank(text: str) -> bool:
    """Whether nothing is seen of the text: white space, control and format characters only."""
    return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text)


def words(folded: str) -> list[str]:
    """Runs of letters, combining marks and digits in a text that is folded already.

    How depends on what is compared: prompts as `normalised`; captions without invisible characters,
    which could hide a concept; labels of foreign models in compatible form (NFKC). ``\\w`` will
    not do: it ends a word at every vowel sign of Devanagari and at Arabic harakat.
    """
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)
    return "".join(kept).split()
