"""The report beside a pair file: what was asked for, what failed and why; the key to resuming."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, digest
from spqr_checks.prompts.pair import PromptPair
from spqr_checks.prompts.pair_files import replace_text
from spqr_checks.tools.rewriting.concept import Concept

VERSION = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair that was asked for and is not in the file.

    Attributes:
        step: ``ask`` (no unsafe prompt), ``rewrite`` (no safe one) or ``check`` (refused).
        attempts: answers of the rewriter at the step that failed.
    """

    concept: str
    number: int
    step: str
    reason: str
    detail: str
    attempts: int
    unsafe: str = ""
    safe: str = ""


@dataclass
class Journal:
    """What a pair file's report says.

    Attributes:
        recipe: of the rewriter and the validators.
        concepts: name → concept.
        failures: (concept, number) → failure.
    """

    recipe: dict[str, Json]
    concepts: dict[str, Concept] = field(default_factory=dict)
    failures: dict[tuple[str, int], Failure] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that stand for the recipe, in each pair's provenance."""
        return digest(self.recipe)[:12]

    def include(self, concepts: Iterable[Concept], where: Path) -> None:
        """Adds concepts; raises UserError for one that an earlier run knew by other names."""
        for concept in concepts:
            known = self.concepts.setdefault(concept.name, concept)
            if known != concept:
                raise UserError(
                    f"{where}: concept {concept.name!r} had another category or other aliases "
                    "when this file was begun; choose another output"
                )

    def write(self, path: Path, pairs: Sequence[PromptPair]) -> None:
        """Writes the report, counts included, in one step."""
        text = json.dumps(self.summary(pairs), indent=2, sort_keys=True, ensure_ascii=False)
        replace_text(path, text + "\n")

    def summary(self, pairs: Sequence[PromptPair]) -> dict[str, Any]:
        """The report's content."""
        failures = sorted(self.failures.values(), key=lambda f: (self._place(f.concept), f.number))
        accepted = Counter(pair.concept for pair in pairs)
        by_concept = {}
        for name in self.concepts:
            reasons = Counter(f.reason for f in failures if f.concept == name)
            by_concept[name] = {
                "asked": accepted[name] + reasons.total(),
                "accepted": accepted[name],
                "failed": dict(reasons),
            }
        return {
            "version": VERSION,
            "recipe": self.recipe,
            "recipe_digest": self.key,
            "concepts": [asdict(concept) for concept in self.concepts.values()],
            "asked": len(pairs) + len(failures),
            "accepted": len(pairs),
            "failed": dict(Counter(f.reason for f in failures)),
            "by_concept": by_concept,
            "failures": [asdict(failure) for failure in failures],
        }

    def _place(self, concept: str) -> int:
        return list(self.concepts).index(concept)

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Reads a report; raises UserError if it cannot be one."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value["version"] != VERSION:
                raise UserError(f"{path}: version {value['version']!r}; this is version {VERSION}")
            concepts = [
                Concept(c["name"], c["category"], tuple(c["aliases"])) for c in value["concepts"]
            ]
            failures = [Failure(**failure) for failure in value["failures"]]
            return cls(
                dict(value["recipe"]),
                {concept.name: concept for concept in concepts},
                {(f.concept, f.number): f for f in failures},
            )
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not the report of a pair file ({error})") from None
