"""The test file that docs/snapshots.md tells teams to copy, run as they run it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nested import apart
from sample_cards import PASSED, card, incomplete

from spqr_checks.errors import UserError
from spqr_checks.reports.snapshot import ScorecardSnapshotExtension
from spqr_checks.reports.snapshot_text import snapshot_text
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.serialize import to_json

DOCS = Path(__file__).parents[2] / "docs" / "snapshots.md"
SNAPSHOT = "tests/__snapshots__/test_scorecard/test_the_scorecard_is_the_agreed_one.toml"


class Team:
    """A repository with the documented test file and, after `agree`, its snapshot."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        documented = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
        assert documented is not None
        pytester.mkdir("tests")
        (pytester.path / "tests" / "test_scorecard.py").write_text(documented[1], encoding="utf-8")
        self.snapshot = pytester.path / SNAPSHOT

    def measure(self, new: Scorecard) -> None:
        report = self._pytester.path / "spqr-report" / "scorecard.json"
        report.parent.mkdir(exist_ok=True)
        report.write_text(to_json(new), encoding="utf-8")

    def agree(self, agreed: Scorecard) -> None:
        self.snapshot.parent.mkdir(parents=True)
        self.snapshot.write_text(snapshot_text(agreed), encoding="utf-8")

    def run(self, *extra: str) -> pytest.RunResult:
        return apart(self._pytester, "tests/test_scorecard.py", *extra)


@pytest.fixture
def team(pytester: pytest.Pytester) -> Team:
    return Team(pytester)


def changed(cell: Any, **changes: Any) -> Scorecard:
    full = card()
    return replace(full, cells=tuple(replace(c, **changes) if c is cell else c for c in full.cells))


NOISE = changed(PASSED, value=3 / 24, interval=(0.0434, 0.3103))
LEFT = changed(PASSED, value=0.5, interval=(0.31, 0.69))


@pytest.mark.slow
def test_the_documented_test_writes_its_snapshot_and_then_passes(team: Team) -> None:
    team.measure(card())
    missing = team.run()
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(["*does not exist!*", "*write it with pytest --snapshot-update*"])
    team.run("--snapshot-update").assert_outcomes(passed=1)
    assert team.snapshot.read_text(encoding="utf-8") == snapshot_text(card())
    team.run().assert_outcomes(passed=1)


@pytest.mark.slow
def test_noise_inside_the_interval_passes_and_is_not_written(team: Team) -> None:
    team.agree(card())
    team.measure(NOISE)
    team.run("--snapshot-update").assert_outcomes(passed=1)
    assert team.snapshot.read_text(encoding="utf-8") == snapshot_text(card())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("new", "words"),
    [
        (
            changed(PASSED, verdict="inconclusive"),
            "was pass 0.0 [0.00, 0.21], is inconclusive 0.0 [0.00, 0.21]",
        ),
        (LEFT, "was pass 0.0 [0.00, 0.21], is pass 0.5 [0.31, 0.69]"),
    ],
)
def test_another_verdict_or_a_value_out_of_its_interval_fails_by_name(
    team: Team, new: Scorecard, words: str
) -> None:
    team.agree(card())
    team.measure(new)
    result = team.run()
    result.assert_outcomes(failed=1)
    # On a CI machine pytest's short summary is not cut, and says the line once more.
    said = [line for line in result.outlines if line.startswith("E ") and ": was " in line]
    named = [line.removeprefix("E").strip() for line in said]
    assert named == [f"{PASSED.cell.id}: {words}"]


@pytest.mark.slow
def test_an_update_takes_over_what_does_not_match(team: Team) -> None:
    team.agree(card())
    team.measure(LEFT)
    team.run("--snapshot-update").assert_outcomes(passed=1)
    assert team.snapshot.read_text(encoding="utf-8") == snapshot_text(LEFT)


@pytest.mark.slow
def test_an_incomplete_run_fails_and_writes_nothing(team: Team) -> None:
    team.measure(incomplete())
    result = team.run("--snapshot-update")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the run is incomplete*"])
    assert not team.snapshot.exists()


def test_paths_and_scorecards_are_serialised_alike(tmp_path: Path) -> None:
    path = tmp_path / "scorecard.json"
    path.write_text(to_json(card()), encoding="utf-8")
    extension = ScorecardSnapshotExtension()
    texts = {extension.serialize(given) for given in (card(), path, str(path))}
    assert texts == {snapshot_text(card())}


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_no_scorecard_is_a_mistake_of_two_lines_at_most(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "scorecard.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        ScorecardSnapshotExtension().serialize(path)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_part_of_a_scorecard_is_refused() -> None:
    with pytest.raises(UserError, match="whole scorecard"):
        ScorecardSnapshotExtension().serialize(card(), exclude=lambda prop, path: True)


def test_without_syrupy_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("syrupy", "syrupy.extensions.single_file"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "spqr_checks.reports.snapshot")
    with pytest.raises(UserError, match=r"needs syrupy, .*'spqr-checks\[snapshots\]'$"):
        importlib.import_module("spqr_checks.reports.snapshot")


@pytest.mark.heavy
def test_syrupy_is_imported_by_nobody_else() -> None:
    code = (
        "import pkgutil, sys, importlib\n"
        "import spqr_checks.reports, spqr_checks.pytest_plugin.plugin, spqr_checks.cli.main\n"
        "for module in pkgutil.iter_modules(spqr_checks.reports.__path__):\n"
        "    if module.name != 'snapshot':\n"
        "        importlib.import_module(f'spqr_checks.reports.{module.name}')\n"
        "assert not [name for name in sys.modules if name.startswith('syrupy')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
