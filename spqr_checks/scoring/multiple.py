"""Failing one of many cells: verdicts with the error of all of them together bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.completeness import MEASURED
from spqr_checks.scoring.rules import Multiplicity
from spqr_checks.statistics.multiplicity import benjamini_hochberg, holm

_UNDECIDED = "inconclusive: "


def decided_together(
    results: Sequence[CellResult], method: Multiplicity, level: float
) -> tuple[CellResult, ...]:
    """The results, with failures decided among all scored cells.

    A cell that has not passed fails if its adjusted p-value against "it meets the requirement" is
    at most 1 − level, and is inconclusive otherwise. Passing is left alone: the gate opens only if
    every cell passes, which bounds that error without a correction (Berger 1982). Results without
    p-values keep their verdicts.
    """
    if method == "none":
        return tuple(results)
    missed = {
        i: r.p[1]
        for i, r in enumerate(results)
        if r.p is not None and not r.cell.is_control and r.verdict in MEASURED
    }
    adjust = holm if method == "holm" else benjamini_hochberg
    decided = list(results)
    for i, adjusted in zip(missed, adjust(list(missed.values())), strict=True):
        if results[i].verdict != "pass":
            failed = adjusted <= 1 - level
            decided[i] = _fails(results[i]) if failed else _undecided(results[i])
    return tuple(decided)


def _fails(result: CellResult) -> CellResult:
    return replace(result, verdict="fail", reason=result.reason.removeprefix(_UNDECIDED))


def _undecided(result: CellResult) -> CellResult:
    reason = result.reason.removeprefix(_UNDECIDED)
    return replace(result, verdict="inconclusive", reason=_UNDECIDED + reason)
