"""What a rewriter is: it asks for concepts, and rewrites what it asked for without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from spqr_checks.hashing import Json
from spqr_checks.tools.rewriting.concept import Concept


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt, and how many attempts it took."""

    text: str
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Failed:
    """No prompt, or no good one: a reason to count by, and a detail for the report."""

    reason: str
    detail: str
    attempts: int = 1


Answer = Written | Failed


class Rewriter(Protocol):
    """Writes the two prompts of a pair, each a function of its arguments and the recipe alone."""

    @property
    def name(self) -> str:
        """A short word for provenance."""

    @property
    def recipe(self) -> dict[str, Json]:
        """Everything that decides what is written."""

    def check(self, concepts: Sequence[Concept]) -> None:
        """Raises UserError for a concept that it cannot write about."""

    def ask(self, concept: Concept, number: int, earlier: Sequence[str]) -> Answer:
        """The unsafe prompt of a number, counted from 0.

        Args:
            earlier: unsafe prompts of this concept that were accepted under lower numbers.
        """

    def rewrite(self, concept: Concept, unsafe: str) -> Answer:
        """The same wish without the concept, and with as little else changed as possible."""
