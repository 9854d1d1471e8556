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
    # the count would show it if every worker took the device for its own
    found = owners.run(tmp_path / "unowned", 3, "cpu:0", owned=False)
    assert found["peak"] > 1.5 * found["bare"]
