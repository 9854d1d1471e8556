"""`spqr align`: a method applied to a user's base, kept in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from spqr_checks.cli.main import main

PROMPTS = """id,prompt,kind,concept,category,anchor
h1,a red triangle,harmful,red triangle,signs,a blue triangle
h2,a green moon,harmful,green moon,sky,a red moon
k1,a red circle,lookalike,red triangle,signs,
k2,a blue star,benign,,,
"""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.csv"
    path.write_text(PROMPTS, encoding="utf-8")
    return path


def align(method: str, base: Path, prompts: Path, out: Path, *more: str) -> int:
    given = ["align", method, "--base", str(base), "--prompts", str(prompts), "--out", str(out)]
    return main([*given, "--threads", "1", *more])


def test_the_folder_holds_the_weights_and_how_they_were_made(
    tiny_pipeline_dir: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "aligned"
    assert align("uce", tiny_pipeline_dir, prompts, out, "--set", "lam=0.25") == 0
    assert {p.name for p in out.iterdir()} == {"denoiser.safetensors", "alignment.json"}
    record = json.loads((out / "alignment.json").read_text(encoding="utf-8"))
    assert record["options"]["lam"] == 0.25
    assert record["concepts"] == ["green moon", "red triangle"]
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == str(out)
    assert "GiB" in captured.err
    assert [p.name for p in out.parent.iterdir()] == ["aligned"]


def test_concepts_can_be_chosen_by_name_or_category(
    tiny_pipeline_dir: Path, prompts: Path, tmp_path: Path
) -> None:
    assert align("uce", tiny_pipeline_dir, prompts, tmp_path / "a", "--concepts", "sky") == 0
    record = json.loads((tmp_path / "a" / "alignment.json").read_text(encoding="utf-8"))
    assert record["concepts"] == ["green moon"]


def test_the_aligned_pipeline_can_be_saved_too(
    tiny_pipeline_dir: Path, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    assert align("uce", tiny_pipeline_dir, prompts, out, "--save-pipeline") == 0
    (saved,) = (out / "pipeline" / "unet").glob("*.safetensors")
    aligned, weights = load_file(saved), load_file(out / "denoiser.safetensors")
    assert all(tensor.equal(weights[name]) for name, tensor in aligned.items())
    (base,) = (tiny_pipeline_dir / "unet").glob("*.safetensors")
    assert any(not tensor.equal(aligned[name]) for name, tensor in load_file(base).items())


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        ("erasure", [], "unknown alignment method 'erasure'; there are:"),
        ("uce", ["--set", "lamb=1"], "unknown option 'lamb'"),
        ("uce", ["--set", "lam"], "write OPTION=VALUE"),
        (
            "uce",
            ["--set", "lam.x=1", "--set", "lam=1", "--set", "lam.x=1"],
            "no options of its own",
        ),
        ("uce", ["--concepts", "purple cow"], "unknown concept or category 'purple cow'"),
        ("uce", ["--languages", "xx"], "unknown language 'xx'"),
    ],
)
def test_mistakes_are_said_in_a_line_or_two_and_leave_nothing(
    tiny_pipeline_dir: Path,
    prompts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
    more: list[str],
    message: str,
) -> None:
    before = set(tmp_path.iterdir())
    assert align(method, tiny_pipeline_dir, prompts, tmp_path / "a", *more) == 4
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 2
    assert set(tmp_path.iterdir()) == before


def test_nothing_of_the_users_is_overwritten(
    tiny_pipeline_dir: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("kept")
    assert align("uce", tiny_pipeline_dir, prompts, tmp_path / "a") == 4
    assert "choose another --out" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["mine.txt"]


def test_a_training_that_diverges_leaves_no_folder(
    tiny_pipeline_dir: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(tmp_path.iterdir())
    wild = ["--set", "steps=3", "--set", "learning_rate=1e30", "--set", "sampling_steps=1"]
    assert align("esd", tiny_pipeline_dir, prompts, tmp_path / "a", *wild) == 4
    assert "diverged" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before
