"""The benchmarks of speed measure what they say, and report nothing that they did not run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import binom

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.runtime.run import Run

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
SMALL = "--images 2 --batch 2 --steps 1 --tuning-steps 3 --tuning-batch 1 --repeats 1"


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    import speed

    monkeypatch.setattr(speed.sizes, "SIZES", {"tiny": ("sd1",)})
    return speed


def run(speed: Any, monkeypatch: pytest.MonkeyPatch, part: str, *more: str) -> None:
    monkeypatch.setattr(sys, "argv", ["speed.py", part, *more])
    speed.main()


def sized(speed: Any, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    run(speed, monkeypatch, "sizes", "--size", "tiny", *SMALL.split(), *more)


@pytest.mark.heavy
def test_a_part_s_rows_are_printed_and_added_to_the_file(
    speed: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "found.json"
    file.write_text('{"suite": []}')
    sized(speed, monkeypatch, "--dtype", "float32", "--json", str(file))
    found = json.loads(file.read_text())
    assert found["suite"] == []
    assert [row["measure"] for row in found["sizes"]] == [
        "sd1: images, ours, beside batched diffusers",
        "sd1: lite steps, batch 1, beside encoding once",
        "sd1: lite steps, batch 1, beside diffusers' example",
    ], "a CPU counts no memory"
    out = capsys.readouterr().out
    for row in found["sizes"]:
        assert row["ours"] > 0
        assert row["measure"] in out
    ours, plain, ratio = (found["sizes"][0][name] for name in ("ours", "beside", "ratio"))
    assert ratio == pytest.approx(ours / plain)


@pytest.mark.heavy
def test_images_that_were_not_drawn_end_it_without_a_table(
    speed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed.sizes, "generate", lambda *_: [object()])
    with pytest.raises(SystemExit, match="1 of 2 images were drawn; nothing is reported"):
        sized(speed, monkeypatch)
    assert capsys.readouterr().out == ""


@pytest.mark.heavy
def test_steps_that_were_not_run_end_it_without_a_table(
    speed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed.sizes.tuning.trainer, "finetune", lambda *_, **__: None)
    with pytest.raises(SystemExit, match="0 of 3 steps were run; nothing is reported"):
        sized(speed, monkeypatch)
    assert capsys.readouterr().out == ""


def test_a_step_bears_its_share_of_encoding_once_and_the_example_s_all_of_it(
    speed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, took = speed.step, speed.step.Took
    turns: list[str] = []

    def taking(name: str, clock: float) -> Any:
        return lambda *_: turns.append(name) or took(clock, clock / 2)

    monkeypatch.setattr(step, "pipeline", lambda *_: None)
    for name, clock in {"our_step": 2.0, "encoding": 8.0, "example_step": 9.0}.items():
        monkeypatch.setattr(step.tuning, name, taking(name, clock))
    given = {"size": None, "profile": None, "batch": 1, "steps": 3, "pairs": 2, "threads": 1}
    rows = step.measure(SimpleNamespace(**given))
    assert len(rows) == 8, "two sizes, two profiles, two clocks"
    lite = next(row for row in rows if row.measure.startswith("sd15-quarter: lite step by"))
    assert lite.ours == pytest.approx(2 + 8 / 3), "three passes over the data"
    assert lite.ratio == pytest.approx(9 / lite.ours)
    miniature = next(row for row in rows if row.measure.startswith("miniature: lite step of"))
    assert miniature.ours == pytest.approx((2 + 8 * 600 / 16 / 120) / 2), "600 images, 120 steps"
    assert turns[:6] == ["encoding", "our_step", "example_step", "example_step", *turns[:2]]


@pytest.mark.heavy
def test_growth_is_measured_and_plotted(
    speed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(speed.growth, "FACTORS", (1, 2))
    monkeypatch.setattr(speed.warm, "_LANGUAGES", 1)
    monkeypatch.setattr(speed.warm, "_DOMAINS", 1)
    few = ["--cells", "3", "--prompts", "20", "--states", "1", "--entries", "4", "--repeats", "1"]
    files = ["--svg", str(tmp_path / "growth.svg"), "--json", str(tmp_path / "found.json")]
    run(speed, monkeypatch, "growth", *few, *files)
    rows = json.loads((tmp_path / "found.json").read_text())["growth"]
    assert [row["measure"].split()[-1] for row in rows] == ["cells", "prompts", "states", "entries"]
    assert all(row["ours"] > 0 for row in rows)
    assert (tmp_path / "growth.svg").read_text().count("<polyline") == 1 + len(rows)


def test_an_exponent_is_that_of_the_power_law(speed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cells", "prompts", "states", "entries"):
        monkeypatch.setattr(speed.growth, name, lambda folder, n, repeats: float(n) ** 2)
    options = SimpleNamespace(cells=1, prompts=1, states=1, entries=1, repeats=1, svg=None)
    assert [row.ratio for row in speed.growth.measure(options)] == pytest.approx([2.0] * 4)


def test_the_clock_counts_the_outermost_pass_once_and_nothing_else(
    speed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speeds import network_clock

    now = iter(range(100))
    monkeypatch.setattr(network_clock.time, "perf_counter", lambda: next(now))
    clock = network_clock.Clock()
    monkeypatch.setattr(torch.nn.Module, "__call__", clock.timed(torch.nn.Module.__call__))
    monkeypatch.setattr(torch.autograd, "backward", clock.timed(torch.autograd.backward))
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    loss = network(torch.ones(1, 2)).sum()
    assert clock.seconds == 1, "layers inside are part of their network"
    loss.backward()
    assert clock.seconds == 2


def test_the_reference_s_number_of_images_errs_as_often_and_passes_as_often(speed: Any) -> None:
    n = speed.verdict.fixed_number(0.2, 0.95, 24, 144)
    assert 24 < n <= 144
    from spqr_checks.statistics.evidence import rate

    met = max(k for k in range(n + 1) if rate(k, n, 0.2, 0.95).p_met <= 0.05)
    assert binom.cdf(met, n, 0.2) <= 0.05
    assert speed.verdict.fixed_number(0.2, 0.95, 24, 24) < n


@pytest.mark.slow
def test_a_warm_run_is_measured(
    speed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(speed.warm, "_LANGUAGES", 1)
    monkeypatch.setattr(speed.warm, "_DOMAINS", 1)
    few = ["--collected", "6", "--measured", "3", "--repeats", "1"]
    run(speed, monkeypatch, "warm", *few, "--json", str(tmp_path / "found.json"))
    collect, warm, worker = json.loads((tmp_path / "found.json").read_text())["warm"]
    assert "collected" in collect["measure"]
    assert "passed" in warm["measure"]
    assert worker["ours"] > 0
    assert worker["beside"] > 0


@pytest.mark.slow
def test_the_reference_of_a_verdict_is_timed_part_by_part(speed: Any, tmp_path: Path) -> None:
    words = ["--spqr-concepts=hazard", "--spqr-languages=en", "--spqr-datasets=miniature:pastel"]
    settings = speed.verdict.cold.settings_of(tmp_path, words)
    session = MeasuringSession(Run.from_settings(settings))
    tuned = SimpleNamespace(name="fine-tuning lite", steps=120, seconds=1.0)
    done = speed.verdict.cold.Finished(1.0, 1.0, {}, [tuned])
    parts = speed.verdict.reference(session, done, calls=2)
    assert set(parts) == {"drawing", "judging", "adherence", "features", "fine-tuning"}
    assert all(seconds > 0 for seconds in parts.values())
    assert speed.verdict.counted(session) > sum(d.n for d in speed.verdict.draws(session))


@pytest.mark.slow
def test_the_gpu_s_script_runs_with_tiny_networks_on_a_cpu(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    script(["cpu", str(file)], check=True)
    found = json.loads(file.read_text())
    assert len(found["sizes"]) == 6
    run, _, score = found["suite"]
    assert "cells" in run["measure"]
    assert 0 <= score["ours"] <= 1


@pytest.mark.heavy
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_gpu_s_script_says_that_there_is_none(tmp_path: Path) -> None:
    done = script(["cuda", str(tmp_path / "gpu.json")], check=False)
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr
    assert not (tmp_path / "gpu.json").exists()


def script(words: list[str], check: bool) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(FOLDER / "gpu.sh"), *words]
    given = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(command, env=given, capture_output=True, text=True, check=check)


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
