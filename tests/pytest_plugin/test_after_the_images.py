"""Once images are drawn nothing may lose what they say: scoring and reporting that fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from warm import card, fill, run

pytestmark = pytest.mark.slow

EVERYTHING_OK, INCOMPLETE, USAGE, NOTHING_SELECTED = 0, 3, 4, 5


def broken(folder: Path, code: str) -> list[str]:
    """Arguments of a run in which this code has replaced something."""
    (folder / "breaks.py").write_text(code, encoding="utf-8")
    return ["-p", "breaks"]


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("spqr_checks.scoring.scorecard.score", False),
        ("spqr_checks.reports.markdown.summary", True),
        ("spqr_checks.reports.terminal.summary_text", True),
    ],
)
def test_a_fault_after_the_images_keeps_the_scorecard_and_is_no_verdict(
    tmp_path: Path, target: str, kept: bool
) -> None:
    fill(tmp_path)
    module, name = target.rsplit(".", 1)
    code = f"import {module} as m\ndef fails(*a, **k): raise ZeroDivisionError('by zero')\n"
    extra = broken(tmp_path, code + f"m.{name} = fails\n")
    result = run(tmp_path, *extra, variables={"PYTHONPATH": "."})
    assert result.returncode == INCOMPLETE, result.stdout + result.stderr
    assert "not wholly scored and reported: ZeroDivisionError: by zero" in result.stdout
    assert (tmp_path / "spqr-report" / "scorecard.json").is_file() == kept


def test_a_step_summary_that_breaks_meanwhile_is_a_warning(tmp_path: Path) -> None:
    fill(tmp_path)
    summary = tmp_path / "steps" / "summary.md"
    summary.parent.mkdir()
    code = "import shutil\ndef pytest_runtest_setup(item): shutil.rmtree('steps', True)\n"
    variables = {"PYTHONPATH": ".", "GITHUB_STEP_SUMMARY": str(summary)}
    result = run(tmp_path, *broken(tmp_path, code), variables=variables)
    assert result.returncode == EVERYTHING_OK, result.stdout + result.stderr
    assert "warning: GITHUB_STEP_SUMMARY: " in result.stdout
    assert card(tmp_path)["gate"]["passed"]
    again = run(tmp_path, variables=variables)
    assert (again.returncode, "GITHUB_STEP_SUMMARY: " in again.stderr) == (USAGE, True)


def test_a_cause_is_carried_whole_and_said_once(tmp_path: Path) -> None:
    fill(tmp_path)
    code = (
        "from spqr_checks.errors import UserError\n"
        "from spqr_checks.checks.session import MeasuringSession\n"
        "def fails(self, cell):\n"
        "    if cell.axis == 'S': raise UserError('x.bin: what is \\x1b[31mwrong.\\nThe remedy.')\n"
        "    raise RuntimeError('CUDA out of memory')\n"
        "MeasuringSession.measure = fails\n"
    )
    extra = [*broken(tmp_path, code), "--junitxml=junit.xml"]
    result = run(tmp_path, *extra, variables={"PYTHONPATH": "."})
    assert result.returncode == INCOMPLETE, result.stdout + result.stderr
    reasons = {missing["reason"] for missing in card(tmp_path)["missing"]}
    shown = "x.bin: what is \\x1b[31mwrong.\nThe remedy."
    assert reasons == {shown, "RuntimeError: CUDA out of memory"}
    summary = (tmp_path / "spqr-report" / "summary.md").read_text(encoding="utf-8")
    assert summary.count("The remedy.") == 2  # under what is missing, and why the gate is closed
    assert "cells: x.bin: what is" in summary
    junit = (tmp_path / "junit.xml").read_text(encoding="utf-8")
    assert "The remedy." in junit
    assert "\x1b" not in junit + summary + result.stdout
    tail = result.stdout[result.stdout.index("INCOMPLETE") :]
    assert ".py:" not in tail.partition("short test summary")[0]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_damage_in_the_store_is_said_and_warnings_of_libraries_are_not(
    tmp_path: Path, workers: str
) -> None:
    fill(tmp_path)
    code = (
        "import warnings\n"
        "from spqr_checks.checks.session import MeasuringSession\n"
        "from spqr_checks.store.store import StoreWarning\n"
        "measure = MeasuringSession.measure\n"
        "def warns(self, cell):\n"
        "    warnings.warn('images/ab: damaged, moved\\x1b[1m', StoreWarning)\n"
        "    warnings.warn('old', DeprecationWarning)\n"
        "    return measure(self, cell)\n"
        "MeasuringSession.measure = warns\n"
    )
    extra = [*broken(tmp_path, code), "--disable-warnings", "-n", workers]
    result = run(tmp_path, *extra, variables={"PYTHONPATH": "."})
    said = [line for line in result.stdout.splitlines() if line.startswith("warning: ")]
    assert said == ["warning: images/ab: damaged, moved\\x1b[1m"]


def test_a_run_without_cells_says_so(tmp_path: Path) -> None:
    fill(tmp_path)
    result = run(tmp_path, "-k", "nothing_at_all")
    assert result.returncode == NOTHING_SELECTED
    assert "no cell was selected" in result.stdout


def test_an_allure_folder_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    result = run(tmp_path, "-p", "allure_pytest.plugin", f"--alluredir={taken}")
    assert result.returncode == USAGE
    assert "--alluredir" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
