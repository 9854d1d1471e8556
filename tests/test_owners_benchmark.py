"""Bytes of pipelines in all workers of one device, counted while the suites run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import forked
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_many_workers_hold_one_pipeline_while_they_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import owners

    found = owners.run(tmp_path, 3, "cpu:0")
    assert found["peak"] <= 1.15 * found["bare"]
    workers = [one for name, one in found["processes"].items() if name.startswith("gw")]
    assert len(workers) == 3
    # who only waits and asserts loads no library that computes
    assert sum(one["torch"] for one in workers) == found["drew"] == 1
    # and who computes loaded them, and began, while the others started
    first = found["processes"]["gw0"]
    assert first["torch"]
    assert first["ready"]
    assert first["ahead"]


HOLDING = """
import owners
from spqr_checks.generation import sampling
from spqr_checks.models.pipelines import load_pipeline
sampling.draw = lambda pipe: None
owners.pytest_configure()
sampling.draw(load_pipeline("miniature"))
"""


@pytest.mark.heavy
def test_the_pipelines_of_all_processes_are_counted(tmp_path: Path) -> None:
    environment = {**os.environ, "SPQR_BENCHMARK_NOTES": str(tmp_path)}
    environment["PYTHONPATH"] = str(BENCHMARKS)
    for _ in range(2):
        done = forked.run([sys.executable, "-c", HOLDING], tmp_path, environment, timeout=60)
        assert done.returncode == 0, done.stderr
    counts = [json.loads(file.read_text()) for file in tmp_path.glob("*.drawn")]
    bare = counts[0]["bare"]
    assert bare > 0
    assert sorted(one["all"] for one in counts) == [bare, 2 * bare]
