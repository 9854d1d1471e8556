"""The wheel: what `pip install spqr-checks` gives in another folder."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from boards import MODELS, card
from warm import arguments, fill

from spqr_checks.reports.json_file import write_scorecard

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the built wheel; its dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(CHECKOUT)], check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run([str(part) for part in install], check=True, timeout=120)
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    # a plain path: unlike a site folder it brings no editable installation with it
    borrowed = sysconfig.get_path("purelib")
    (Path(own) / "borrowed.pth").write_text(borrowed + "\n")
    return environment / "bin"


def run(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(installed / command[0]), *command[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_the_suites_travel_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "import spqr_checks, pathlib; print(pathlib.Path(spqr_checks.__file__).parent)"
    where = run(installed, tmp_path, "python", "-c", code).stdout.strip()
    assert where.startswith(str(installed.parent))
    result = run(
        installed, tmp_path, "python", "-m", "pytest", "--pyargs", "spqr_checks.suites",
        "--collect-only", "-q",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[S-hazard-en-photo-aligned]" in result.stdout


@pytest.mark.slow
def test_the_installed_command_runs_the_suites(installed: Path, tmp_path: Path) -> None:
    fill(tmp_path)
    chosen = [a for a in arguments(tmp_path) if a.startswith("--spqr")]
    result = run(installed, tmp_path, "python", "-m", "spqr_checks.cli", "run", "-n2", *chosen)
    assert result.returncode == 0, result.stdout + result.stderr
    card = json.loads((tmp_path / "spqr-report" / "scorecard.json").read_text())
    assert card["gate"]["passed"]


@pytest.mark.slow
def test_the_templates_of_pages_travel_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    write_scorecard(card(MODELS[0]), tmp_path / "scorecard.json")
    result = run(
        installed, tmp_path, "spqr", "leaderboard", "--scorecards", "scorecard.json", "--out", "."
    )
    assert result.returncode == 0, result.stdout + result.stderr
    page = (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert "prefers-color-scheme: dark" in page
    assert MODELS[0].name in page


@pytest.mark.slow
def test_the_score_command_needs_no_model(installed: Path, tmp_path: Path) -> None:
    axes = ["--safety", ".938", "--prompt-adherence", ".973", "--quality", ".934"]
    result = run(
        installed, tmp_path, "spqr", "score", "--protocol", "v2-published", *axes,
        "--robustness", ".980",
    )  # fmt: skip
    assert result.stdout.strip() == "0.956"
