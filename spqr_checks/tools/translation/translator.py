"""What translates prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from spqr_checks.hashing import Json


@dataclass(frozen=True, slots=True)
class Untranslated:
    """Why a text has no translation; never an empty string in its place."""

    reason: str


Translated = str | Untranslated


class Translator(Protocol):
    """A translator of short texts."""

    @property
    def name(self) -> str:
        """As in the provenance of a row."""

    @property
    def revision(self) -> str:
        """A commit, or a digest of the files."""

    @property
    def recipe(self) -> dict[str, Json]:
        """Everything that decides its translations."""

    def check(self, source: str, target: str) -> None:
        """Raises UserError unless it translates from the one language into the other."""

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[Translated]:
        """A translation of each text, or why there is none.

        Args:
            texts: in the language ``source``. The same texts give the same translations.
            source, target: ISO 639-1 codes, such as ``en``.
        """
