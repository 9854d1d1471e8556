"""Bytes of pipelines in all workers of one device, counted while the suites run."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.slow
def test_many_workers_hold_one_pipeline_while_they_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import owners

    found = owners.run(tmp_path / "owned", 3, "cpu:0")
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
    # the count would show it if every worker took the device for its own
    nothing_tuned = owners.SETTINGS.replace('"method:uce"', '"base"\nprofiles = []')
    found = owners.run(tmp_path / "unowned", 2, "cpu:0", owned=False, settings=nothing_tuned)
    assert found["peak"] > 1.5 * found["bare"]
