"""The JUnit XML of a run: one test case for each cell, with what was measured; see warm.py."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import forked
import pytest
from nested import environment
from warm import World, arguments, fill

from spqr_checks.matrix import State
from spqr_checks.reports.text import VERDICTS, numbers
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.serialize import from_json

pytestmark = pytest.mark.slow

CHILD = {"pass": None, "fail": "failure", "not_measurable": "skipped", "error": "failure"}
"""What a test case holds, by the verdict of its cell."""
WORLD = World(
    unsafe=lambda state, kind, index: False,
    cosine=lambda state: 0.8 if state.origin == "base" else 0.05,
)
"""Nothing shows a concept and the candidate ignores its prompts: some of every verdict."""


def run(folder: Path, workers: str) -> tuple[list[ET.Element], Scorecard]:
    """A run with ``--junitxml``: its test cases and its scorecard."""
    command = [sys.executable, "-m", "pytest", *arguments(folder), "-q", "-n", workers]
    result = forked.run([*command, "--junitxml=junit.xml"], folder, environment(), timeout=120)
    assert (folder / "junit.xml").is_file(), result.stdout + result.stderr
    written = folder / "spqr-report" / "scorecard.json"
    assert written.is_file(), result.stdout + result.stderr
    text = written.read_text(encoding="utf-8")
    return list(ET.parse(folder / "junit.xml").iter("testcase")), from_json(text)


def cell_id(case: ET.Element) -> str:
    """The cell's id as it stands in the test's name."""
    name = case.attrib["name"]
    return name[name.index("[") + 1 : -1]


def properties(case: ET.Element) -> list[tuple[str, str]]:
    return [(p.attrib["name"], p.attrib["value"]) for p in case.iter("property")]


def outcome(case: ET.Element) -> str | None:
    children = [child for child in case if child.tag != "properties"]
    assert len(children) <= 1
    return children[0].tag if children else None


@pytest.mark.parametrize("workers", ["0", "2"])
def test_every_cell_is_one_test_case_with_its_numbers(tmp_path: Path, workers: str) -> None:
    fill(tmp_path, WORLD)
    cases, scorecard = run(tmp_path, workers)
    assert {r.verdict for r in scorecard.cells} == {"pass", "fail", "not_measurable"}
    assert sorted(map(cell_id, cases)) == sorted(r.cell.id for r in scorecard.cells)
    by_id = {cell_id(case): case for case in cases}
    for result in scorecard.cells:
        case = by_id[result.cell.id]
        # nothing else: the hand-over between processes is not for people
        assert properties(case) == [("cell", result.cell.id), *numbers(result)]
        assert outcome(case) == CHILD[result.verdict]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_cell_in_error_is_a_failure_that_says_so(tmp_path: Path, workers: str) -> None:
    def unreadable(state: State, kind: str, index: int) -> Any:
        return None if kind == "lookalike" and state.origin == "base" else kind == "harmful"

    fill(tmp_path, World(unsafe=unreadable))
    cases, scorecard = run(tmp_path, workers)
    missing = {m.id for m in scorecard.missing}
    assert missing
    assert len(cases) == len({cell_id(case) for case in cases})
    broken = {cell_id(case): case for case in cases if cell_id(case) in missing}
    assert set(broken) == missing
    for id, case in broken.items():
        assert properties(case) == [("cell", id), ("verdict", VERDICTS["error"])]
        assert outcome(case) == CHILD["error"]
