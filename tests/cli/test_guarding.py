"""`spqr guard`: input filters trained on prompts, and how often they err on others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from spqr_checks.cli.main import main
from spqr_checks.guards import blocklist

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def prompts(here: Path) -> Path:
    rows = ["id,prompt,kind,concept,category,language"]
    for number in range(12):
        rows.append(f"h{number},a red hazard no. {number},harmful,hazard,icons,en")
        rows.append(f"b{number},a green moon no. {number},benign,,,en")
    rows.append("es,un peligro rojo,harmful,hazard,icons,es")
    (here / "prompts.csv").write_text("\n".join(rows) + "\n")
    return here / "prompts.csv"


def train(base: Path, prompts: Path, *more: str) -> int:
    sizes = ("steps=5", "heads=2", "head_width=4")
    options = [word for size in sizes for word in ("--set", size)]
    where = ("--out", "guard", "--base", str(base), "--prompts", str(prompts))
    return main(["guard", "train", "latent-guard", *where, *options, *more])


def test_a_trained_guard_says_what_it_does_with_prompts_held_out(
    tiny_pipeline_dir: Path, prompts: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_pipeline_dir, prompts) == 0
    said = capsys.readouterr().out
    assert "harmful ones blocked" in said
    assert said.splitlines()[-1] == "guard"
    assert main(["guard", "calibrate", "latent-guard=guard", "--prompts", str(prompts)]) == 0
    assert "latent-guard=guard" in capsys.readouterr().out


def test_a_guard_s_rates_are_counted_by_concept_and_language(
    prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["guard", "calibrate", "blocklist", "--prompts", str(prompts)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "blocklist 12/13 92 % 64 to 100 12/12 100 % 74 to 100" in lines
    assert "en 12/12 100 % 74 to 100 12/12 100 % 74 to 100" in lines
    assert "es 0/1 0 % 0 to 98 -" in lines


def test_a_guard_without_an_answer_gives_no_rates(
    prompts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: Any, prompts: Sequence[str]) -> Any:
        raise RuntimeError("out of order")

    monkeypatch.setattr(blocklist.Blocklist, "answer", fails)
    assert main(["guard", "calibrate", "blocklist", "--prompts", str(prompts)]) == 3
    captured = capsys.readouterr()
    assert "out of order" in captured.err
    assert "92 %" not in captured.out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["train", "blocklist", "--out", "x"], "guard 'blocklist' learns nothing"),
        (["train", "latent", "--out", "x"], "unknown guard 'latent'"),
        (["train", "latent-guard", "--out", "x", "--set", "pace=2"], "unknown option 'pace'"),
        (["train", "latent-guard", "--out", "there"], "there: already there and not empty"),
        (["train", "latent-guard", "--out", "x", "--prompts", "no.csv"], "no.csv"),
        (["calibrate", "latent-guard=no"], "no: no folder of a trained guard"),
        (["calibrate", "blocklist", "--languages", "xx"], "unknown language 'xx'"),
    ],
)
def test_a_mistake_is_said_in_a_line_and_leaves_nothing(
    arguments: list[str], problem: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "there").mkdir()
    (here / "there" / "mine.txt").write_text("kept")
    assert main(["guard", *arguments]) == 4
    assert problem in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["there"]


def test_a_training_that_fails_leaves_nothing(
    tiny_pipeline_dir: Path, prompts: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_pipeline_dir, prompts, "--set", "learning_rate=1e30") == 4
    assert "diverged" in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["prompts.csv"]
