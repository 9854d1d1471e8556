"""Builds a pair file: N unsafe prompts for each concept, a safe one for each, only what passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, canonical
from spqr_checks.prompts.pair import PromptPair
from spqr_checks.prompts.pair_files import read_pairs, write_pairs
from spqr_checks.prompts.rows import check_ending
from spqr_checks.store import leases
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.journal import Failure, Journal
from spqr_checks.tools.rewriting.rewriter import Failed, Rewriter
from spqr_checks.tools.rewriting.validators import Checks

SAVE_EVERY = 16
"""Results after which the files are written again; a killed run loses fewer than these."""

Progress = Callable[[Concept, int, int], None]
"""Called after each concept with the numbers accepted and asked for."""


@dataclass(frozen=True)
class Built:
    """What is in the file now.

    Attributes:
        failures: of this run and earlier ones, for the pairs that this run asked for.
    """

    pairs: tuple[PromptPair, ...]
    failures: tuple[Failure, ...]


def report_path(out: Path) -> Path:
    """Where the report of a pair file lies."""
    return out.with_name(f"{out.name}.report.json")


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


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keeps other processes from writing the file; raises UserError if one is doing so."""
    with ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            lock = leases.lock(out.with_name(f".{out.name}.lock"), wait=False)
            mine = stack.enter_context(lock)
        except OSError as error:
            raise UserError(f"{out}: cannot be written: {error.strerror}") from None
        if not mine:
            raise UserError(f"{out}: another process is writing this file; wait for it")
        yield


class _Work:
    """One output file while it is being built."""

    def __init__(self, rewriter: Rewriter, checks: Checks, out: Path) -> None:
        self._rewriter = rewriter
        self._checks = checks
        self._out = out
        recipe: dict[str, Json] = {"rewriter": rewriter.recipe, "validators": checks.recipe}
        self._journal = _begun(out, recipe)
        self._pairs = {pair.id: pair for pair in (read_pairs(out) if out.exists() else ())}
        checks.accepted((pair.unsafe, pair.safe) for pair in self._pairs.values())
        self._unsaved = 0

    def run(self, concepts: Sequence[Concept], count: int, progress: Progress) -> Built:
        self._journal.include(concepts, report_path(self._out))
        self._journal.write(report_path(self._out), self._sorted())
        try:
            for concept in concepts:
                for number in range(count):
                    self._one(concept, number)
                accepted = sum(self._id(concept, n) in self._pairs for n in range(count))
                progress(concept, accepted, count)
        finally:
            self._save()
        failures = (self._journal.failures.get((c.name, n)) for c in concepts for n in range(count))
        return Built(tuple(self._sorted()), tuple(f for f in failures if f is not None))

    def _id(self, concept: Concept, number: int) -> str:
        return f"{self._out.stem}/{concept.name}/{number:05d}"

    def _one(self, concept: Concept, number: int) -> None:
        known = self._journal.failures
        if (concept.name, number) in known or self._id(concept, number) in self._pairs:
            return
        result = self._pair(concept, number)
        if isinstance(result, Failure):
            known[concept.name, number] = result
        else:
            self._pairs[result.id] = result
            self._checks.accepted([(result.unsafe, result.safe)])
        self._unsaved += 1
        if self._unsaved >= SAVE_EVERY:
            self._save()

    def _pair(self, concept: Concept, number: int) -> PromptPair | Failure:
        earlier = [
            self._pairs[name].unsafe
            for n in range(number)
            if (name := self._id(concept, n)) in self._pairs
        ]
        asked = self._rewriter.ask(concept, number, earlier)
        if isinstance(asked, Failed):
            return Failure(concept.name, number, "ask", asked.reason, asked.detail, asked.attempts)
        unsafe = asked.text
        answer = self._rewriter.rewrite(concept, unsafe)
        if isinstance(answer, Failed):
            return Failure(
                concept.name,
                number,
                "rewrite",
                answer.reason,
                answer.detail,
                answer.attempts,
                unsafe,
            )
        safe = answer.text
        fault = self._checks.fault(concept, unsafe, safe)
        if fault is not None:
            return Failure(
                concept.name,
                number,
                "check",
                fault.reason,
                fault.detail,
                answer.attempts,
                unsafe,
                safe,
            )
        return PromptPair(
            id=self._id(concept, number),
            category=concept.category,
            unsafe=unsafe,
            safe=safe,
            concept=concept.name,
            provenance=f"{self._rewriter.name} {self._journal.key}",
        )

    def _sorted(self) -> list[PromptPair]:
        """By concept in the journal's order, then by number."""
        place = {name: n for n, name in enumerate(self._journal.concepts)}
        return sorted(self._pairs.values(), key=lambda p: (place[p.concept], p.id))

    def _save(self) -> None:
        pairs = self._sorted()
        if pairs:
            write_pairs(self._out, pairs)
        self._journal.write(report_path(self._out), pairs)
        self._unsaved = 0


def _begun(out: Path, recipe: dict[str, Json]) -> Journal:
    """The journal of an output: a new one, or that of an earlier run with the same recipe."""
    path = report_path(out)
    if not path.exists():
        if out.exists():
            raise UserError(
                f"{out} exists but its report {path.name} does not: choose another output"
            )
        return Journal(recipe)
    journal = Journal.read(path)
    if canonical(journal.recipe) != canonical(recipe):
        raise UserError(
            f"{out} was begun with another rewriter, seed or other validators (see {path.name}): "
            "repeat those, or choose another output"
        )
    if out.exists():
        foreign = {pair.concept for pair in read_pairs(out)} - journal.concepts.keys()
        if foreign:
            raise UserError(f"{out}: concept {min(foreign)!r} is not in {path.name}")
    return journal
