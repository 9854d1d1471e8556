"""`spqr init`: what it writes is what a run reads, and nothing that is there is lost."""

from __future__ import annotations

import os
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from spqr_checks.cli.doctor import NOT_WORKING, doctor
from spqr_checks.cli.init import workflow
from spqr_checks.cli.main import main
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.settings import load_settings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("spqr_checks.cli.doctor.doctor", lambda options: NOT_WORKING)


def table() -> dict[str, Any]:
    return dict(tomllib.loads(Path("pyproject.toml").read_text("utf-8-sig"))["tool"]["spqr"])


@pytest.mark.heavy
def test_a_model_of_one_s_own_gets_settings_samples_and_a_workflow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spqr_checks.cli.doctor.doctor", doctor)
    assert main(["init", "--base", "./base", "--candidate", "./mine", "--yes"]) == 0
    written = table()
    assert (written["base"], written["candidate"]) == ("./base", "./mine")
    preset = resources.files("spqr_checks.presets") / f"{written['preset']}.toml"
    chosen = tomllib.loads(preset.read_text("utf-8"))
    assert chosen["thresholds"]["unsafe"] == 0.05
    assert written["seeds"] == [0, 1, 2]
    assert "sampler" not in chosen  # a model of any size is drawn at its own
    kinds = ["harmful", "lookalike", "benign"]
    assert written["prompts"] == [f"prompts/{kind}.csv" for kind in kinds]
    prompts = PromptSet.load(written["prompts"])
    assert {prompt.kind for prompt in prompts.prompts} == set(kinds)
    assert yaml.safe_load(Path(".github/workflows/spqr.yml").read_text("utf-8"))["name"] == "spqr"
    said = capsys.readouterr().out
    assert "still to be brought" in said
    assert "settings: no judge given" in said
    assert "written: pyproject.toml" in "\n".join(said.splitlines()[-40:])  # not scrolled away
    assert '# judge = "classifier=./judge"' in Path("pyproject.toml").read_text("utf-8")


@pytest.mark.heavy
def test_the_embedded_world_needs_nothing_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spqr_checks.cli.doctor.doctor", doctor)
    assert main(["init", "--yes"]) == 0
    assert table() == {"base": "miniature", "candidate": "method:esd", "min_score": 0.8}
    assert not Path("prompts").exists()
    assert "next: spqr run" in capsys.readouterr().out
    assert load_settings(Path.cwd(), {}).judge == "classifier=miniature:classifier"


@pytest.mark.heavy
def test_a_project_keeps_what_it_says_and_is_set_up_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("pyproject.toml").write_text('[project]\nname = "mine"\n')
    assert main(["init", "--yes"]) == 0
    whole = Path("pyproject.toml").read_text("utf-8")
    assert whole.startswith('[project]\nname = "mine"\n\n[tool.spqr]\n')
    assert main(["init", "--yes"]) == 4
    assert "[tool.spqr] already" in capsys.readouterr().err
    assert Path("pyproject.toml").read_text("utf-8") == whole


@pytest.mark.heavy
@pytest.mark.parametrize(
    "before",
    [
        b'# [tool.spqr] is not set up yet\n[project]\nname = "mine"\n',
        b'[project]\nname = "the [tool.spqr] of ours"',
        b'[project]\r\nname = "mine"\r\n\r\n\r\n',
        b"[tool.spqr.sampler]\nsteps = 7\n",
        b'\xef\xbb\xbf[project]\r\nname = "m\xc3\xafne"',
        b"\n",
    ],
)
def test_what_a_project_says_stays_byte_by_byte(before: bytes) -> None:
    project = Path("pyproject.toml")
    project.write_bytes(before)
    project.chmod(0o640)
    Path("real").mkdir()
    project.rename("real/settings.toml")
    project.symlink_to("real/settings.toml")
    assert main(["init", "--yes"]) == 0
    after = project.read_bytes()
    assert after.startswith(before)
    assert table()["candidate"] == "method:esd"
    windows = b"\r\n" in before
    assert (after.count(b"\r\n") == after.count(b"\n")) is windows
    assert project.is_symlink()
    assert project.stat().st_mode & 0o777 == 0o640
    sampler = load_settings(Path.cwd(), {}).sampler
    assert (sampler.steps == 7) is (b"steps" in before)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (b'tool.spqr.base = "x"\n', "[tool.spqr] already"),
        (b'[tool]\nspqr = {base = "x"}\n', "[tool.spqr] already"),
        (b'[tool."spqr"]\nbase = "x"\n', "[tool.spqr] already"),
        (b'[ tool . spqr ]\nbase = "x"\n', "[tool.spqr] already"),
        (b"[tool]\nspqr.sampler.steps = 7\n", "cannot be added"),
        (b"tool = 7\n", "[tool.spqr] already"),
        (b"[project\n", "not valid TOML"),
        (b'[project]\nname = "m\xefne"\n', "not UTF-8"),
    ],
)
def test_a_project_that_cannot_be_added_to_is_left_alone(
    before: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pyproject.toml").write_bytes(before)
    assert main(["init", "--yes"]) == 4
    assert said in capsys.readouterr().err
    assert [(p.name, p.read_bytes()) for p in Path().iterdir()] == [("pyproject.toml", before)]


def test_what_cannot_be_finished_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pyproject.toml").write_text("[project]\n")

    def full(old: Path, new: Path) -> None:
        if new.name == "pyproject.toml":
            raise OSError(28, "No space left on device")
        os.replace(old, new)

    monkeypatch.setattr(Path, "replace", full)
    assert main(["init", "--base", "./base", "--yes"]) == 4
    assert Path("pyproject.toml").read_text() == "[project]\n"
    assert [p for p in Path().rglob("*") if p.is_file()] == [Path("pyproject.toml")]


def test_a_file_in_the_way_is_named_before_anything_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("prompts").mkdir()
    Path("prompts/benign.csv").write_text("mine")
    assert main(["init", "--base", "./base", "--yes"]) == 4
    assert "prompts/benign.csv: already there" in capsys.readouterr().err
    assert not Path("pyproject.toml").exists()
    assert not Path(".github").exists()


def test_on_a_terminal_it_asks_for_what_no_option_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers = {"candidate": "./mine", "judge": "q16", "prompts": "own.csv"}

    def answer(question: str) -> str:
        asked.append(question.split(":")[0])
        return answers.get(asked[-1], "")

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    assert main(["init", "--base", "./base"]) == 0
    assert asked == ["candidate", "judge", "prompts", "datasets", "reference", "clip"]
    assert (table()["judge"], table()["prompts"]) == ("q16", ["own.csv"])
    assert "datasets" not in table()
    assert not Path("prompts").exists()


def test_the_workflow_is_that_of_the_docs() -> None:
    docs = Path(__file__).parents[2] / "docs" / "workflows" / "github.yml"
    assert workflow() == docs.read_text(encoding="utf-8")
