"""The benchmark of speed measures what it says, and reports nothing that it did not run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")
FOLDER = Path(__file__).parents[1] / "benchmarks"
SMALL = "--images 2 --batch 2 --steps 1 --tuning-steps 3 --tuning-batch 1 --repeats 1"


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    import speed

    monkeypatch.setattr(speed, "SIZES", {"tiny": ("sd1",)})
    return speed


def run(speed: Any, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    monkeypatch.setattr(sys, "argv", ["speed.py", "--size", "tiny", *SMALL.split(), *more])
    speed.main()


def test_a_table_of_what_was_run(
    speed: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(speed, monkeypatch, "--dtype", "float32", "--json", str(tmp_path / "found.json"))
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["images/s", "lite steps/s, batch 1"]
    for row in rows:
        assert all(value > 0 for value in row["speed"].values())
        assert row["peak_gib"] == {"ours": None, "plain": None}, "a CPU does not count"
    assert capsys.readouterr().out.count("not counted") == 4


def test_images_that_were_not_drawn_end_it_without_a_table(
    speed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "generate", lambda *_: [object()])
    with pytest.raises(SystemExit, match="1 of 2 images were drawn; nothing is reported"):
        run(speed, monkeypatch)
    assert capsys.readouterr().out == ""


def test_steps_that_were_not_run_end_it_without_a_table(
    speed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed.trainer, "finetune", lambda *_, **__: None)
    with pytest.raises(SystemExit, match="0 of 3 steps were run; nothing is reported"):
        run(speed, monkeypatch)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            "_sd15",
            {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
        ),
        (
            "_sdxl",
            {
                "unet": 2_567_463_684,
                "vae": 83_653_863,
                "text_encoder": 123_060_480,
                "text_encoder_2": 694_659_840,
            },
        ),
    ],
)
def test_the_sizes_are_the_published_ones(
    build: str, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import sized_pipelines

    from spqr_checks.models.weights import networks

    pipe = getattr(sized_pipelines, build)("meta")
    sizes = {n: sum(p.numel() for p in part.parameters()) for n, part in networks(pipe).items()}
    assert sizes == expected
