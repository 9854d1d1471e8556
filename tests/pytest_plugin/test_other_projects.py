"""The plugin in other people's projects: what is a cell, and what is none of its business."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from nested import PLUGINS
from projects import card, card_bytes, has_report, in_one_process_and_with_workers, run, started
from warm import fill

EVERYTHING_OK, TESTS_FAILED, INTERRUPTED, INCOMPLETE = 0, 1, 2, 3
CELL_ID = "S-hazard-en-photo-aligned"

pytestmark = pytest.mark.usefixtures("no_inherited_options")

SUPPRESSION = """
    import pytest
    @pytest.mark.spqr("suppression")
    def test_mine(spqr_cell, spqr_check):
        spqr_check(spqr_cell)
"""


@in_one_process_and_with_workers
@pytest.mark.parametrize("folder", [".", "tests_safety"])
def test_a_file_that_is_only_called_like_a_suite_s_is_none(
    pytester: pytest.Pytester, workers: str, folder: str
) -> None:
    source = f"import pytest\n@pytest.mark.parametrize('x', ['{CELL_ID}'])\ndef test_x(x): pass\n"
    (pytester.path / folder).mkdir(exist_ok=True)
    (pytester.path / folder / "test_quality.py").write_text(source)
    # settings that a measuring run would refuse
    (pytester.path / "pyproject.toml").write_text("[tool.spqr]\ncandidate = 'method:nope'\n")
    result = started(pytester, "-n", workers, folder)
    result.assert_outcomes(passed=1)
    assert result.ret == EVERYTHING_OK
    assert not has_report(pytester)


@pytest.mark.slow
def test_a_test_marked_for_a_check_measures_its_cells_alike_with_and_without_workers(
    pytester: pytest.Pytester,
) -> None:
    fill(pytester.path)
    pytester.makepyfile(test_mine=SUPPRESSION)
    written = []
    for workers in ("0", "2"):
        result = run(pytester, "test_mine.py", "-n", workers)
        assert result.ret == INCOMPLETE, "the other checks are missing"
        measured = {c["id"]: c["verdict"] for c in card(pytester)["cells"]}
        assert measured[CELL_ID] == "pass"
        assert all(id.startswith("S-") for id in measured)
        written.append(card_bytes(pytester))
    assert written[0] == written[1]


@pytest.mark.heavy
@in_one_process_and_with_workers
def test_a_marked_test_that_measures_nothing_leaves_the_run_incomplete(
    pytester: pytest.Pytester, workers: str
) -> None:
    fill(pytester.path)
    pytester.makepyfile(
        test_mine="""
        import pytest
        @pytest.mark.spqr("suppression")
        def test_mine(spqr_cell):
            assert spqr_cell.check == "suppression"
        """
    )
    result = run(pytester, "test_mine.py", "-n", workers)
    assert result.ret == INCOMPLETE
    assert CELL_ID in json.dumps(card(pytester)["missing"])


@pytest.mark.heavy
@in_one_process_and_with_workers
@pytest.mark.parametrize("own_test_passes", [True, False])
def test_own_tests_beside_the_suites_leave_the_number_alone_and_can_fail_the_run(
    pytester: pytest.Pytester, workers: str, own_test_passes: bool
) -> None:
    fill(pytester.path)
    pytester.makepyfile(
        test_mine=SUPPRESSION,
        test_quality=f"""
        import pytest
        @pytest.fixture
        def check(): return "mine"
        @pytest.fixture
        def cell(check): return check + ", too"
        @pytest.mark.parametrize("x", ["{CELL_ID}"])
        def test_own(check, cell, x):
            assert (check, cell) == ("mine", "mine, too")
            assert {own_test_passes}
        """,
    )
    result = run(pytester, "test_quality.py", "test_mine.py", "-n", workers, suites=True)
    assert result.ret == (EVERYTHING_OK if own_test_passes else TESTS_FAILED), result.outlines
    assert card(pytester)["complete"]
    assert card(pytester)["gate"]["passed"]


@pytest.mark.slow
@pytest.mark.parametrize("restarts", ["0", "1"])
def test_a_worker_killed_in_its_first_cell_does_not_hide_that_there_were_cells(
    pytester: pytest.Pytester, restarts: str
) -> None:
    fill(pytester.path)
    pytester.makepyfile(test_mine=SUPPRESSION)
    pytester.makeconftest(
        """
        import os, signal, pytest
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_logstart(nodeid):
            if "PYTEST_XDIST_WORKER" in os.environ:
                os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    result = run(pytester, "test_mine.py", "-n2", f"--max-worker-restart={restarts}")
    assert result.ret != EVERYTHING_OK
    assert not card(pytester)["complete"]
    assert CELL_ID in json.dumps(card(pytester)["missing"])


@in_one_process_and_with_workers
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("@pytest.mark.spqr('supression')\ndef test_x(spqr_cell): pass", "'suppression'?"),
        ("@pytest.mark.spqr('suppression')\ndef test_x(): pass", "the argument spqr_cell"),
        (
            "@pytest.mark.spqr('drift')\ndef test_x(spqr_cell): pass",
            "unknown alignment method 'nope'",
        ),
    ],
    ids=["unknown check", "no argument", "mistaken settings"],
)
def test_a_mistake_at_a_marked_test_is_told_in_a_line(
    pytester: pytest.Pytester, workers: str, source: str, said: str
) -> None:
    pytester.makepyfile(test_mine=f"import pytest\n{source}\n")
    (pytester.path / "pyproject.toml").write_text("[tool.spqr]\ncandidate = 'method:nope'\n")
    result = started(pytester, "-n", workers)
    assert result.ret in (TESTS_FAILED, INTERRUPTED)
    text = result.stdout.str()
    assert "test_x is marked spqr(" in text
    assert said in text
    assert "Traceback" not in text
    assert not has_report(pytester)


@pytest.mark.heavy
def test_the_plugin_s_fixtures_all_begin_with_its_name(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PLUGINS:  # here it is its entry point that brings it
        monkeypatch.delenv(name)
    pytester.makepyfile("def test_one(check): pass\ndef test_two(cell): pass")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*fixture 'check' not found*", "*fixture 'cell' not found*"])
    listed = pytester.runpytest_subprocess("--fixtures", "-v").stdout.str().splitlines()
    ours = [line.split()[0] for line in listed if " -- " in line and "spqr_checks" in line]
    assert ours
    assert all(name.startswith("spqr") for name in ours)


def test_an_unrelated_project_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys
        HEAVY = ("pydantic", "torch", "numpy", "scipy", "rich", "diffusers", "transformers", "PIL")
        def test_nothing_is_loaded():
            assert "spqr_checks.pytest_plugin.plugin" in sys.modules
            assert [name for name in HEAVY if name in sys.modules] == []
            assert [m for m in sys.modules if m.startswith("spqr_checks.runtime")] == []
        """
    )
    # other plugins of this environment may load what they like
    result = pytester.runpytest_subprocess(
        "-p", "spqr_checks.pytest_plugin.plugin", "-p", "no:cacheprovider", **{"timeout": 60}
    )
    result.assert_outcomes(passed=1)


@pytest.mark.slow
def test_an_unrelated_project_pays_at_most_50_ms(tmp_path: Path) -> None:
    """Processor time of whole runs in pairs; the least of each side, which noise only raises."""
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]

    def seconds(*more: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [*command, *more], cwd=tmp_path, env=environment, check=True, capture_output=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    without, having = float("inf"), float("inf")
    for pair in range(12):
        without = min(without, seconds())
        having = min(having, seconds("-p", "spqr_checks.pytest_plugin.plugin"))
        if pair >= 4 and having - without <= 0.05:
            break
    assert having - without <= 0.05
