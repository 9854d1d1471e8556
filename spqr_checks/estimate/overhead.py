"""What a run takes beside what it makes: the start of its processes, and reading what is there.

Runs keep both in the store (see `keep`); what was never timed there takes what is stated here.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from spqr_checks.estimate.estimate import Prices, Span
from spqr_checks.hashing import digest
from spqr_checks.store.timings import Timing, Work, record

START, READING = "start-up", "reading, scores, reports"
_START, _REPORTS, _CELL = 1.5, 1.0, 0.01
"""Seconds that nobody has timed: of a process's start, of all reports, of a cell. About what one
profiled run took on a core of 2026."""
_KIND = "run"
_MOST = 1e8


def in_turn(workers: int) -> int:
    """How many processes start one after the other: the controller, then a worker on each core."""
    return 1 + math.ceil(workers / (os.cpu_count() or 1))


def of(prices: Prices, cells: int, workers: int) -> Span:
    """Seconds of a run that makes nothing.

    Args:
        workers: xdist's; 0 where the controller measures.
    """
    start, reading = _works(cells, workers)
    stated = {START: _START * in_turn(workers), READING: _REPORTS + _CELL * cells}
    spans = []
    for work in (start, reading):
        price = prices.of(work)
        spans.append(Span(*[stated[work.name]] * 3) if price is None else price.seconds)
    return Span(*map(sum, zip(*spans, strict=True)))


def keep(root: Path, *, cells: int, workers: int, start: float, reading: float | None) -> None:
    """Keeps what a run took, instead of what the last one of so many cells and workers took.

    Args:
        start: seconds until the first cell is measured.
        reading: seconds from there to the end; None where that was not all reading.
    """
    for work, seconds in zip(_works(cells, workers), (start, reading), strict=True):
        if seconds is not None:
            label = f"{cells} cells, {workers} workers"
            timing = Timing(**dict(work), label=label, seconds=min(_MOST, max(0.0, seconds)))
            record(root, _KIND, digest({"what": work.name, "label": label}), timing)


def _works(cells: int, workers: int) -> tuple[Work, Work]:
    return Work(name=START, parts=in_turn(workers)), Work(name=READING, parts=max(1, cells))
