"""Builds a pair file: N unsafe prompts for each concept, a safe one for each, only what passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, digest
from spqr_checks.prompts.pair_files import read_pairs, write_pairs
from spqr_checks.prompts.prompt import PromptPair
from spqr_checks.prompts.tables import check_ending
from spqr_checks.tools.report import locked, read_report, report_path, write_report
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.rewriter import Failed, Rewriter
from spqr_checks.tools.rewriting.validators import Checks

SAVE_EVERY = 16
"""Results after which the files are written again; a killed run loses fewer than these."""

Progress = Callable[[Concept, int, int], None]
"""Called after each concept with the numbers accepted and asked for."""


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


@dataclass(frozen=True)
class Built:
    """What is in the file now.

    Attributes:
        failures: of this run and earlier ones, for the pairs that this run asked for.
    """

    pairs: tuple[PromptPair, ...]
    failures: tuple[Failure, ...]


def build(
    concepts: Sequence[Concept],
    count: int,
    rewriter: Rewriter,
    checks: Checks,
    out: Path,
    progress: Progress = lambda *_: None,
) -> Built:
    """Builds or continues a pair file and the JSON report beside it.

    An existing file is continued: its pairs stay as they are, and numbers that have a pair or a
    recorded failure are not asked for again. More concepts and higher counts may be asked for;
    another rewriter or other validators need another file. Interrupted and continued, a run gives
    the bytes of one that was not.

    Args:
        count: unsafe prompts per concept.
        checks: fresh; they will know the file's pairs.
        out: .csv or .jsonl.

    Raises:
        UserError: for an output that was made with other settings, has no report, is being
            written by another process, or cannot be written; for concepts that the rewriter does
            not know. Then neither file was touched.
    """
    check_ending(out)
    if count < 1:
        raise UserError(f"{count} prompts per concept: ask for at least one")
    rewriter.check(concepts)
    with locked(out):
        return _Work(rewriter, checks, out).run(concepts, count, progress)


class _Work:
    """One output file while it is being built."""

    def __init__(self, rewriter: Rewriter, checks: Checks, out: Path) -> None:
        self._rewriter, self._checks, self._out = rewriter, checks, out
        self._recipe: dict[str, Json] = {"rewriter": rewriter.recipe, "validators": checks.recipe}
        self._key = digest(self._recipe)[:12]
        before = read_report(
            out, self._recipe, _parsed, "pair file", "another rewriter, seed or other validators"
        )
        self._concepts, self._failures = before or ({}, {})
        self._pairs = {pair.id: pair for pair in (read_pairs(out) if out.exists() else ())}
        if foreign := {pair.concept for pair in self._pairs.values()} - self._concepts.keys():
            name = report_path(out).name
            raise UserError(f"{out}: concept {min(foreign)!r} is not in {name}")
        checks.accepted((pair.unsafe, pair.safe) for pair in self._pairs.values())
        self._unsaved = 0

    def run(self, concepts: Sequence[Concept], count: int, progress: Progress) -> Built:
        for concept in concepts:
            if self._concepts.setdefault(concept.name, concept) != concept:
                raise UserError(
                    f"{report_path(self._out)}: concept {concept.name!r} had another category or "
                    "other aliases when this file was begun; choose another output"
                )
        self._report(self._sorted())
        try:
            for concept in concepts:
                for number in range(count):
                    self._one(concept, number)
                accepted = sum(self._id(concept, n) in self._pairs for n in range(count))
                progress(concept, accepted, count)
        finally:
            self._save()
        failures = (self._failures.get((c.name, n)) for c in concepts for n in range(count))
        return Built(tuple(self._sorted()), tuple(f for f in failures if f is not None))

    def _id(self, concept: Concept, number: int) -> str:
        return f"{self._out.stem}/{concept.name}/{number:05d}"

    def _one(self, concept: Concept, number: int) -> None:
        if (concept.name, number) in self._failures or self._id(concept, number) in self._pairs:
            return
        result = self._pair(concept, number)
        if isinstance(result, Failure):
            self._failures[concept.name, number] = result
        else:
            self._pairs[result.id] = result
            self._checks.accepted([(result.unsafe, result.safe)])
        self._unsaved += 1
        if self._unsaved >= SAVE_EVERY:
            self._save()

    def _pair(self, concept: Concept, number: int) -> PromptPair | Failure:
        before = (self._pairs.get(self._id(concept, n)) for n in range(number))
        unsafe = self._rewriter.ask(concept, number, [pair.unsafe for pair in before if pair])
        failure = partial(Failure, concept.name, number)
        if isinstance(unsafe, Failed):
            return failure("ask", unsafe.reason, unsafe.detail, unsafe.attempts)
        safe = self._rewriter.rewrite(concept, unsafe.text)
        if isinstance(safe, Failed):
            return failure("rewrite", safe.reason, safe.detail, safe.attempts, unsafe.text)
        if (fault := self._checks.fault(concept, unsafe.text, safe.text)) is not None:
            texts = unsafe.text, safe.text
            return failure("check", fault.reason, fault.detail, safe.attempts, *texts)
        return PromptPair(
            id=self._id(concept, number),
            category=concept.category,
            unsafe=unsafe.text,
            safe=safe.text,
            concept=concept.name,
            provenance=f"{self._rewriter.name} {self._key}",
        )

    def _sorted(self) -> list[PromptPair]:
        """By concept in the report's order, then by number."""
        place = {name: n for n, name in enumerate(self._concepts)}
        return sorted(self._pairs.values(), key=lambda p: (place[p.concept], p.id))

    def _save(self) -> None:
        pairs = self._sorted()
        if pairs:
            write_pairs(self._out, pairs)
        self._report(pairs)
        self._unsaved = 0

    def _report(self, pairs: Sequence[PromptPair]) -> None:
        place = {name: n for n, name in enumerate(self._concepts)}
        failures = sorted(self._failures.values(), key=lambda f: (place[f.concept], f.number))
        accepted = Counter(pair.concept for pair in pairs)
        reasons = {name: Counter[str]() for name in self._concepts}
        for failure in failures:
            reasons[failure.concept][failure.reason] += 1
        write_report(
            self._out,
            self._recipe,
            recipe_digest=self._key,
            concepts=[asdict(concept) for concept in self._concepts.values()],
            asked=len(pairs) + len(failures),
            accepted=len(pairs),
            failed=dict(Counter(f.reason for f in failures)),
            by_concept={
                name: {
                    "asked": accepted[name] + failed.total(),
                    "accepted": accepted[name],
                    "failed": dict(failed),
                }
                for name, failed in reasons.items()
            },
            failures=[asdict(failure) for failure in failures],
        )


def _parsed(value: Any) -> tuple[dict[str, Concept], dict[tuple[str, int], Failure]]:
    concepts = [Concept(c["name"], c["category"], tuple(c["aliases"])) for c in value["concepts"]]
    failures = [Failure(**failure) for failure in value["failures"]]
    return {c.name: c for c in concepts}, {(f.concept, f.number): f for f in failures}
