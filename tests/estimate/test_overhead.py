"""A run's own time: its processes' start, cells read from a full store, scores and reports."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from nested import environment
from warm import arguments, fill

from spqr_checks.estimate import overhead
from spqr_checks.estimate.estimate import Prices, Span
from spqr_checks.store.timings import read

SPQR = [sys.executable, "-c", "import sys; from spqr_checks.cli.main import main; sys.exit(main())"]


def test_what_was_never_timed_takes_what_is_stated() -> None:
    few, many = (overhead.of(Prices([]), cells, 0).expected for cells in (10, 1000))
    assert 1 < few < many < 60
    assert overhead.of(Prices([]), 10, 2).expected > few


def test_workers_start_after_their_controller_and_share_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert [overhead.in_turn(workers) for workers in (0, 1, 2, 3, 8)] == [1, 2, 2, 3, 5]


def test_earlier_runs_are_the_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    overhead.keep(tmp_path, cells=20, workers=2, start=6.0, reading=4.0)
    prices = Prices(read(tmp_path)[0])
    assert overhead.of(prices, 20, 2) == Span(10.0, 10.0, 10.0)
    # one process instead of a controller and two workers beside each other; half the cells
    assert overhead.of(prices, 10, 0).expected == 3.0 + 2.0
    # a later run of the kind takes the place of the earlier; another kind stands beside it
    overhead.keep(tmp_path, cells=20, workers=2, start=8.0, reading=None)
    assert overhead.of(Prices(read(tmp_path)[0]), 20, 2).expected == 8.0 + 4.0
    overhead.keep(tmp_path, cells=40, workers=2, start=10.0, reading=16.0)
    assert overhead.of(Prices(read(tmp_path)[0]), 20, 2) == Span(8 + 4, 9 + 6, 10 + 8)


def test_a_store_that_cannot_be_written_keeps_none(tmp_path: Path) -> None:
    (tmp_path / "timings").write_text("a file")
    overhead.keep(tmp_path, cells=20, workers=2, start=6.0, reading=4.0)


def spqr(folder: Path, command: str, *given: str) -> tuple[str, float]:
    """What it printed, and the seconds that its process took."""
    begun = time.monotonic()
    done = subprocess.run(
        [*SPQR, command, *given], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, time.monotonic() - begun


def said(out: str) -> float:
    """Seconds of the last row of an estimate."""
    (row,) = [line for line in out.splitlines() if line.startswith("wall time")]
    number, unit = row.split("  ")[-1 if "–" not in row else -2].split()
    return float(number) * {"s": 1, "min": 60}[unit]


@pytest.mark.heavy
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "two"])
def test_on_a_full_store_the_estimate_is_what_the_run_takes_within_a_factor_of_two(
    tmp_path: Path, workers: list[str]
) -> None:
    """The machine may be busier in one of the runs than in the other, so one of three counts."""
    fill(tmp_path)
    given = [a for a in arguments(tmp_path) if a.startswith("--spqr")]
    factors = []
    spqr(tmp_path, "run", *given, *workers)  # leaves its time in the store
    for _ in range(3):
        expected = said(spqr(tmp_path, "estimate", *given, *workers)[0])
        _, took = spqr(tmp_path, "run", *given, *workers)
        factors.append(expected / took)
        if 0.5 <= factors[-1] <= 2:
            return
    pytest.fail(f"the estimate was off by the factors {factors}")
