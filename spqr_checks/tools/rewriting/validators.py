"""What a pair must be before it is written: each validator names one fault."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spqr_checks.errors import JudgeError
from spqr_checks.finetuning.concepts import names
from spqr_checks.hashing import Json
from spqr_checks.prompts.text import is_blank, normalised
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.similarity import Similarity
from spqr_checks.tools.rewriting.token_limit import TokenLimit


@dataclass(frozen=True, slots=True)
class Fault:
    """A reason to count by, and a detail for the report."""

    reason: str
    detail: str


class Validator(Protocol):
    """One requirement."""

    @property
    def recipe(self) -> dict[str, Json]:
        """What it requires."""

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Fault | None:
        """What is wrong with the pair; None if it meets the requirement."""


@dataclass(frozen=True)
class NotEmpty:
    """Both prompts say something, and not the same."""

    @property
    def recipe(self) -> dict[str, Json]:
        return {"prompts": "not empty, not equal"}

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Fault | None:
        for side, text in (("unsafe", unsafe), ("safe", safe)):
            if is_blank(text):
                return Fault("empty", f"the {side} prompt is empty")
        if normalised(unsafe) == normalised(safe):
            return Fault("unchanged", "the safe prompt is the unsafe one")
        return None


@dataclass(frozen=True)
class FitsTokenizers:
    """Neither prompt is cut off by a text encoder."""

    limits: Sequence[TokenLimit]

    @property
    def recipe(self) -> dict[str, Json]:
        return {"tokens": [limit.recipe for limit in self.limits]}

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Fault | None:
        for side, text in (("unsafe", unsafe), ("safe", safe)):
            for limit in self.limits:
                if (n := limit.exceeded_by(text)) is not None:
                    return Fault("too long", f"the {side} prompt has {n} tokens of {limit.most}")
        return None


@dataclass(frozen=True)
class ConceptAbsent:
    """The safe prompt names no concept: neither its own nor another of the list.

    All names count, in every language, as whole words in any order and any distance, folded for
    case and Unicode composition (``finetuning.concepts.names``). Inflected forms must be listed
    as aliases.
    """

    concepts: Sequence[Concept]

    @property
    def recipe(self) -> dict[str, Json]:
        return {"concepts": "absent"}

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Fault | None:
        for name in concept.names:
            if names(safe, name):
                return Fault("names the concept", f"the safe prompt names {name!r}")
        for other in self.concepts:
            for name in other.names:
                if names(safe, name):
                    return Fault("names another concept", f"the safe prompt names {name!r}")
        return None


@dataclass(frozen=True)
class Near:
    """The two prompts are similar enough. What cannot be measured is not near."""

    similarity: Similarity

    @property
    def recipe(self) -> dict[str, Json]:
        return self.similarity.recipe

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Fault | None:
        try:
            value = self.similarity.measure(unsafe, safe)
        except JudgeError as error:
            return Fault("similarity unknown", str(error))
        if not math.isfinite(value):
            return Fault("similarity unknown", f"the similarity is {value}")
        if value < self.similarity.at_least:
            least = self.similarity.at_least
            return Fault("too different", f"similarity {value:.3f}, at least {least:g} needed")
        return None


class Checks:
    """All validators in order, and the pairs accepted so far, which must not come again."""

    def __init__(self, validators: Sequence[Validator]) -> None:
        self._validators = validators
        self._unsafe: set[str] = set()
        self._safe: set[str] = set()

    @property
    def recipe(self) -> list[Json]:
        return [validator.recipe for validator in self._validators]

    def accepted(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Remembers (unsafe, safe) pairs."""
        for unsafe, safe in pairs:
            self._unsafe.add(normalised(unsafe))
            self._safe.add(normalised(safe))

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Fault | None:
        """The first fault.

        Several unsafe prompts may share a safe one. An unsafe prompt that came before is a
        duplicate, and a text cannot be unsafe in one pair and safe in another.
        """
        for validator in self._validators:
            if (fault := validator.fault(concept, unsafe, safe)) is not None:
                return fault
        if normalised(unsafe) in self._unsafe:
            return Fault("duplicate", "another pair has this unsafe prompt")
        if normalised(unsafe) in self._safe or normalised(safe) in self._unsafe:
            return Fault("contradiction", "one of its prompts is on the other side of another pair")
        return None
