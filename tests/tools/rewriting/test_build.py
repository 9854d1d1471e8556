"""Building pair files: complete, resumable, and honest about what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.prompts.pair_files import read_pairs
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.store import leases
from spqr_checks.tools.report import report_path
from spqr_checks.tools.rewriting.build import Built, build
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.rewriter import Answer, Failed, Rewriter, Written
from spqr_checks.tools.rewriting.slot_table import SlotTable
from spqr_checks.tools.rewriting.template import TemplateRewriter
from spqr_checks.tools.rewriting.validators import Checks, ConceptAbsent, Near, NotEmpty
from spqr_checks.tools.similarity import word_overlap

CONCEPTS = (Concept("bolt", "warnings"), Concept("star", "signals", ("stars",)))


class Interrupted(Exception):  # noqa: N818
    """What a signal would do."""


class Scripted:
    """Fails in every way in turn, and may be interrupted after some answers."""

    name = "scripted"

    def __init__(self, seed: int = 0, interrupted_after: int = 10**9) -> None:
        self.recipe: dict[str, Json] = {"rewriter": "scripted", "seed": seed}
        self.earlier: list[tuple[str, ...]] = []
        self._left = interrupted_after

    def check(self, concepts: Sequence[Concept]) -> None:
        if any(concept.name == "unknown" for concept in concepts):
            raise UserError("no concept 'unknown' here")

    def ask(self, concept: Concept, number: int, earlier: Sequence[str]) -> Answer:
        if self._left == 0:
            raise Interrupted
        self._left -= 1
        self.earlier.append(tuple(earlier))
        if number % 7 == 3:
            return Failed("unparsable", "not JSON: 'Sure!'", 3)
        repeated = number - 1 if number % 7 == 5 else number
        return Written(f"a big {concept.name} of kind {repeated}")

    def rewrite(self, concept: Concept, unsafe: str) -> Answer:
        number = int(unsafe.split()[-1])
        if number % 7 == 6:
            return Failed("unparsable", "empty answer", 3)
        if number % 7 == 2:
            return Written(unsafe.replace("kind", "sort"))
        return Written(unsafe.replace(concept.name, "tree"))


def checks(concepts: Sequence[Concept] = CONCEPTS, least: float = 0.5) -> Checks:
    return Checks([NotEmpty(), ConceptAbsent(concepts), Near(word_overlap(least))])


def run(out: Path, count: int = 7, rewriter: Rewriter | None = None) -> Built:
    return build(CONCEPTS, count, rewriter or Scripted(), checks(), out)


def report(out: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(report_path(out).read_text(encoding="utf-8"))
    return value


def test_what_passes_is_written_and_what_does_not_is_reported(tmp_path: Path) -> None:
    out = tmp_path / "new" / "pairs.csv"
    built = run(out)
    pairs = read_pairs(out)
    assert list(built.pairs) == pairs
    assert [p.id for p in pairs] == [
        f"pairs/{name}/0000{n}" for name in ("bolt", "star") for n in (0, 1, 4)
    ]
    assert (pairs[0].unsafe, pairs[0].safe) == ("a big bolt of kind 0", "a big tree of kind 0")
    assert (pairs[0].concept, pairs[0].category) == ("bolt", "warnings")
    written = report(out)
    assert pairs[0].provenance == f"scripted {written['recipe_digest']}"
    assert (written["asked"], written["accepted"]) == (14, 6)
    assert written["failed"] == {"unparsable": 4, "names the concept": 2, "duplicate": 2}
    assert written["by_concept"]["star"] == {
        "asked": 7,
        "accepted": 3,
        "failed": {"unparsable": 2, "names the concept": 1, "duplicate": 1},
    }
    first = written["failures"][0]
    assert (first["concept"], first["number"], first["step"]) == ("bolt", 2, "check")
    assert first["safe"] == "a big bolt of sort 2"
    assert written["failures"][1]["attempts"] == 3
    assert {f["step"] for f in written["failures"]} == {"ask", "rewrite", "check"}
    assert len(built.failures) == 8


def test_every_number_asked_for_is_a_pair_or_a_failure(tmp_path: Path) -> None:
    built = run(tmp_path / "pairs.csv", count=30)
    assert len(built.pairs) + len(built.failures) == 60
    assert {p.id for p in built.pairs}.isdisjoint(
        f"pairs/{f.concept}/{f.number:05d}" for f in built.failures
    )


def test_the_rewriter_is_shown_what_was_accepted_before(tmp_path: Path) -> None:
    rewriter = Scripted()
    run(tmp_path / "pairs.csv", 5, rewriter)
    assert rewriter.earlier[4] == ("a big bolt of kind 0", "a big bolt of kind 1")
    assert rewriter.earlier[5] == ()


@pytest.mark.heavy
@settings(max_examples=20)
@given(st.lists(st.integers(0, 45), max_size=3), st.sampled_from([".csv", ".jsonl"]))
def test_interrupted_and_continued_it_gives_the_bytes_of_one_run(
    tmp_path_factory: pytest.TempPathFactory, interruptions: list[int], ending: str
) -> None:
    folder = tmp_path_factory.mktemp("build")
    whole, parts = folder / "a" / f"pairs{ending}", folder / "b" / f"pairs{ending}"
    run(whole, 20)
    for after in interruptions:
        try:
            run(parts, 20, Scripted(interrupted_after=after))
        except Interrupted:
            assert report_path(parts).exists()
    run(parts, 20)
    assert parts.read_bytes() == whole.read_bytes()
    assert report_path(parts).read_bytes() == report_path(whole).read_bytes()


def test_a_finished_file_is_left_as_it_is_and_nothing_is_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    run(out)
    before = out.read_bytes(), report_path(out).read_bytes()
    rewriter = Scripted(interrupted_after=0)
    run(out, 7, rewriter)
    assert (out.read_bytes(), report_path(out).read_bytes()) == before


def test_more_pairs_and_concepts_are_added_to_those_there(tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    run(out, 2)
    before = read_pairs(out)
    more = (Concept("moon", "tokens"), *CONCEPTS)
    build(more, 5, Scripted(), checks(more), out)
    after = read_pairs(out)
    assert [p for p in after if p in before] == before
    assert {p.concept for p in after} == {"bolt", "star", "moon"}
    assert report(out)["asked"] == 15
    run(out, 1)
    assert read_pairs(out) == after


def test_a_pair_that_was_taken_out_is_asked_for_again(tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    run(out)
    before = out.read_bytes()
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    out.write_text("".join(lines[:2] + lines[3:]), encoding="utf-8")
    rewriter = Scripted()
    run(out, 7, rewriter)
    assert out.read_bytes() == before
    assert rewriter.earlier == [("a big bolt of kind 0",)]


@pytest.mark.parametrize("changed", ["seed", "threshold", "aliases"])
def test_a_file_begun_with_other_settings_is_refused_and_left_alone(
    tmp_path: Path, changed: str
) -> None:
    out = tmp_path / "pairs.csv"
    run(out)
    before = out.read_bytes(), report_path(out).read_bytes()
    rewriter = Scripted(seed=1 if changed == "seed" else 0)
    least = 0.4 if changed == "threshold" else 0.5
    aliases = ("estrella",) if changed == "aliases" else ("stars",)
    concepts = (Concept("bolt", "warnings"), Concept("star", "signals", aliases))
    with pytest.raises(UserError, match="choose another output"):
        build(concepts, 9, rewriter, checks(least=least), out)
    assert (out.read_bytes(), report_path(out).read_bytes()) == before


def test_a_file_without_its_report_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    run(out)
    report_path(out).unlink()
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"its report pairs\.csv\.report\.json does not"):
        run(out)
    assert out.read_bytes() == before


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 2}', '{"version": 1}'])
def test_a_report_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    out = tmp_path / "pairs.csv"
    report_path(out).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"pairs\.csv\.report\.json: "):
        run(out)
    assert not out.exists()


def test_mistakes_are_found_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no concept 'unknown'"):
        build([Concept("unknown", "c")], 1, Scripted(), checks(), tmp_path / "p.csv")
    with pytest.raises(UserError, match=r"\.csv or \.jsonl"):
        run(tmp_path / "p.txt")
    with pytest.raises(UserError, match="at least one"):
        run(tmp_path / "p.csv", 0)
    assert not list(tmp_path.iterdir())


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with (
        leases.lock(tmp_path / ".p.csv.lock", wait=False),
        pytest.raises(UserError, match="another process is writing"),
    ):
        run(tmp_path / "p.csv")
    run(tmp_path / "p.csv")


def test_a_rewriter_that_never_answers_leaves_a_report_and_no_pairs(tmp_path: Path) -> None:
    class Silent(Scripted):
        def ask(self, concept: Concept, number: int, earlier: Sequence[str]) -> Answer:
            return Failed("unparsable", "empty answer", 3)

    out = tmp_path / "pairs.csv"
    built = run(out, 2, Silent())
    assert not out.exists()
    assert built.pairs == ()
    assert report(out)["failed"] == {"unparsable": 4}


def test_the_file_is_what_alignment_methods_read(tmp_path: Path, table: SlotTable) -> None:
    out = tmp_path / "shapes.jsonl"
    concepts = table.listed_concepts()
    built = build(concepts, 3, TemplateRewriter(table), checks(concepts), out)
    assert not built.failures
    prompts = PromptSet.load([str(out)])
    assert prompts.categories == {"red triangle": "signals", "hazard sign": "warnings"}
    harmful = [p for p in prompts.prompts if p.kind == "harmful"]
    assert len(harmful) == 6
    assert {p.anchor for p in harmful} == {p.text for p in prompts.prompts if p.kind == "lookalike"}
