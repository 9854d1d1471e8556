"""What a pair must be before it is written, or to be learned from: each validator names a fault."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spqr_checks.errors import JudgeError
from spqr_checks.finetuning.concepts import names
from spqr_checks.hashing import Json
from spqr_checks.prompts.formats import coprov2
from spqr_checks.prompts.pair_files import pairs_of
from spqr_checks.prompts.prompt import PromptPair
from spqr_checks.prompts.tables import read_rows
from spqr_checks.prompts.text import is_blank, normalised
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.rewriter import Failed
from spqr_checks.tools.rewriting.token_limit import TokenLimit
from spqr_checks.tools.similarity import Similarity


class Validator(Protocol):
    """One requirement."""

    @property
    def recipe(self) -> dict[str, Json]:
        """What it requires."""

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Failed | None:
        """What is wrong with the pair; None if it meets the requirement."""


class NotEmpty:
    """Both prompts say something, and not the same."""

    @property
    def recipe(self) -> dict[str, Json]:
        return {"prompts": "not empty, not equal"}

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Failed | None:
        for side, text in (("unsafe", unsafe), ("safe", safe)):
            if is_blank(text):
                return Failed("empty", f"the {side} prompt is empty")
        if normalised(unsafe) == normalised(safe):
            return Failed("unchanged", "the safe prompt is the unsafe one")
        return None


@dataclass(frozen=True)
class FitsTokenizers:
    """Neither prompt is cut off by a text encoder."""

    limits: Sequence[TokenLimit]

    @property
    def recipe(self) -> dict[str, Json]:
        return {"tokens": [limit.recipe for limit in self.limits]}

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Failed | None:
        for side, text in (("unsafe", unsafe), ("safe", safe)):
            for limit in self.limits:
                if (n := limit.exceeded_by(text)) is not None:
                    return Failed("too long", f"the {side} prompt has {n} tokens of {limit.most}")
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

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Failed | None:
        for which, others in (("the", [concept]), ("another", self.concepts)):
            for name in (name for other in others for name in other.names):
                if names(safe, name):
                    return Failed(f"names {which} concept", f"the safe prompt names {name!r}")
        return None


@dataclass(frozen=True)
class Near:
    """The two prompts are similar enough. What cannot be measured is not near."""

    similarity: Similarity

    @property
    def recipe(self) -> dict[str, Json]:
        return self.similarity.recipe

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Failed | None:
        try:
            value = self.similarity.measure(unsafe, safe)
        except JudgeError as error:
            return Failed("similarity unknown", str(error))
        if not math.isfinite(value):
            return Failed("similarity unknown", f"the similarity is {value}")
        if value < self.similarity.at_least:
            least = self.similarity.at_least
            return Failed("too different", f"similarity {value:.3f}, at least {least:g} needed")
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

    def fault(self, concept: Concept, unsafe: str, safe: str) -> Failed | None:
        """The first fault.

        Several unsafe prompts may share a safe one. An unsafe prompt that came before is a
        duplicate, and a text cannot be unsafe in one pair and safe in another.
        """
        for validator in self._validators:
            if (fault := validator.fault(concept, unsafe, safe)) is not None:
                return fault
        if normalised(unsafe) in self._unsafe:
            return Failed("duplicate", "another pair has this unsafe prompt")
        if normalised(unsafe) in self._safe or normalised(safe) in self._unsafe:
            return Failed(
                "contradiction", "one of its prompts is on the other side of another pair"
            )
        return None


def check_file(
    path: Path, concepts: Sequence[Concept], validators: Sequence[Validator]
) -> tuple[int, list[tuple[PromptPair, Failed]]]:
    """Holds every pair of a file against the validators and against the pairs before it.

    Args:
        path: a pair file, or CoProV2's training file.
        concepts: where a pair's concept is among them, its aliases count too. Where a pair has no
            concept, its category is looked for instead.

    Returns:
        number of pairs, and those with a fault.

    Raises:
        UserError: if the file cannot be read.
    """
    rows = read_rows(path)
    read = coprov2.training_pairs if coprov2.recognises(rows[0][1]) else pairs_of
    known = {normalised(concept.name): concept for concept in concepts}
    checks, pairs, found = Checks(validators), read(path, rows), []
    for pair in pairs:
        name = pair.concept or pair.category
        concept = known.get(normalised(name), Concept(name, pair.category))
        if (fault := checks.fault(concept, pair.unsafe, pair.safe)) is not None:
            found.append((pair, fault))
        checks.accepted([(pair.unsafe, pair.safe)])
    return len(pairs), found
