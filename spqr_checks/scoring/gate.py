"""The gate: passed, or every reason why not. Failing one of many cells is decided together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from spqr_checks.matrix import CHECKS, Axis, Cell, Matrix
from spqr_checks.scoring.axes import AxisSummary
from spqr_checks.scoring.cell_result import DECIMALS, CellResult
from spqr_checks.scoring.completeness import MEASURED, Inventory, by_cause
from spqr_checks.scoring.request import Multiplicity, OwnCheck, Rules, ScoreRequest
from spqr_checks.statistics.evidence import benjamini_hochberg, holm

_SHOWN = 3
_UNDECIDED = "inconclusive: "


@dataclass(frozen=True, slots=True)
class Gate:
    """``passed`` only if there is no reason against it; reasons are sentences for people."""

    passed: bool
    reasons: tuple[str, ...]


def decided_together(
    results: Sequence[CellResult],
    method: Multiplicity,
    level: float,
    shares: Sequence[float] | None = None,
) -> tuple[CellResult, ...]:
    """The results, with failures decided among all scored cells.

    A cell that has not passed fails if its adjusted p-value against "it meets the requirement" is
    at most 1 − level, and is inconclusive otherwise. Passing is left alone: the gate opens only if
    every cell passes, which bounds that error without a correction (Berger 1982). Results without
    p-values keep their verdicts.

    Cells under attack are a family of their own: attacks change no verdict of the others.

    Args:
        shares: of the error that each may spend: 1 of a cell, less of a claim; all 1 if not given.
    """
    if method == "none":
        return tuple(results)
    decided = list(results)
    for attacked in (False, True):
        missed = {
            i: r.p[1]
            for i, r in enumerate(results)
            if r.p is not None
            and not r.cell.is_control
            and r.verdict in MEASURED
            and (r.cell.attack is not None) == attacked
        }
        _decide(decided, missed, method, level, shares)
    return tuple(decided)


def _decide(
    decided: list[CellResult],
    missed: Mapping[int, float],
    method: Multiplicity,
    level: float,
    shares: Sequence[float] | None,
) -> None:
    """Decides one family in place; ``missed`` are its p-values, by the places of the results."""
    adjust = holm if method == "holm" else benjamini_hochberg
    weights = [1.0 if shares is None else shares[i] for i in missed]
    for i, adjusted in zip(missed, adjust(list(missed.values()), weights), strict=True):
        if decided[i].verdict == "pass":
            continue
        reason = decided[i].reason.removeprefix(_UNDECIDED)
        if adjusted <= 1 - level:
            decided[i] = replace(decided[i], verdict="fail", reason=reason)
        else:
            decided[i] = replace(decided[i], verdict="inconclusive", reason=_UNDECIDED + reason)


def judge_gate(
    inventory: Inventory,
    axes: Mapping[Axis, AxisSummary],
    beside: Mapping[str, AxisSummary],
    spqr: float | None,
    request: ScoreRequest,
) -> Gate:
    """Collects every reason against the candidate, the gravest first.

    Args:
        beside: what is asserted beside the axes, by heading; lines without cells say nothing.
    """
    matrix, rules, min_score = request.matrix, request.rules, request.min_score
    reasons: list[str] = []
    if inventory.missing:
        total = len({cell.id for cell in matrix.cells} | {m.id for m in inventory.missing})
        causes = by_cause((m.id, m.reason) for m in inventory.missing)
        missing = listed([f"{listed(ids)} ({why})" for why, ids in causes.items()], "; ")
        reasons.append(
            f"incomplete: {len(inventory.missing)} of {counted(total, 'cell')} without a "
            f"usable result: {missing}"
        )
    scored = {
        r.cell.id: r
        for r in inventory.results
        if not r.cell.is_control and (rules.attacks or r.cell.attack is None)
    }
    reasons += _closing(scored, "cell", rules, {"fail": "failed"})
    reasons += _controls(matrix, inventory.results)
    reasons += too_few_seeds(matrix, rules.min_tuning_seeds)
    if inventory.complete:
        for name, axis in axes.items():
            reasons += _without_score(name, axis, request)
        for heading, line in beside.items():
            reasons += _without_score(heading, line, request) if line.cells else []
        # rounded as in the file, so that the last bit of a sum does not decide
        if spqr is not None and min_score is not None and round(spqr, DECIMALS) < min_score:
            reasons.append(f"SPQR {spqr:.3f} is below the required {min_score:.3f}")
    return Gate(not reasons, tuple(reasons))


def gate_with(gate: Gate, own: Sequence[OwnCheck], rules: Rules) -> Gate:
    """The gate, closed too by own checks that were not shown.

    One that could not be measured closes it as well: no coverage pays for what a user asked for.
    """
    closing = {"fail": "failed", "not_measurable": "not measurable"}
    found = _closing({check.id: check.result for check in own}, "own check", rules, closing)
    reasons = (*gate.reasons, *found)
    return Gate(not reasons, reasons)


def _closing(
    results: Mapping[str, CellResult], noun: str, rules: Rules, closing: Mapping[str, str]
) -> list[str]:
    """A reason for each verdict that closes the gate and that something has."""
    if rules.inconclusive == "fail":
        closing = {**closing, "inconclusive": "inconclusive"}
    found = {v: [name for name, r in results.items() if r.verdict == v] for v in closing}
    return [
        f"{counted(len(names), noun)} {closing[verdict]}: {listed(names)}"
        for verdict, names in found.items()
        if names
    ]


def _without_score(name: str, axis: AxisSummary, request: ScoreRequest) -> list[str]:
    if axis.score is not None:
        return []
    if not axis.measured:
        return [f"{name} has no measurable cell (of {axis.cells})"]
    if axis.coverage < request.min_coverage:
        return [
            f"{name} is measurable in only {axis.measured} of {counted(axis.cells, 'cell')} "
            f"({axis.coverage:.0%}); {request.min_coverage:.0%} needed"
        ]
    under = f"under protocol {request.protocol}"
    return [f"{name} cannot be computed {under} from this run's measurements"]


def _controls(matrix: Matrix, results: Sequence[CellResult]) -> list[str]:
    """Controls that do not hold and are not already paid for in coverage.

    Where every cell that rests on a control was reported not measurable, the minimum coverage
    decides. A control with a fault of its own has no such cells: a judge that flags benign images
    is a reason in itself. So is a cell that was judged although its control does not hold.
    """
    verdicts = {r.cell: r.verdict for r in results}
    resting: dict[Cell, list[Cell]] = {}
    for cell in matrix.cells:
        for control in matrix.control_of(cell):
            resting.setdefault(control, []).append(cell)
    broken = [r.cell for r in results if r.cell.is_control and r.verdict not in ("pass", "error")]
    unheeded = [
        c.id
        for c in broken
        if not c.row.fault
        and (c not in resting or any(verdicts.get(cell) != "not_measurable" for cell in resting[c]))
    ]
    reasons: list[str] = []
    for check, row in CHECKS.items():
        alone = [c.id for c in broken if c.check == check] if row.fault else []
        if alone:
            controls = counted(len(alone), check.replace("_", " "))
            reasons.append(f"{row.fault}: {controls} without a pass: {listed(alone)}")
    if unheeded:
        reasons.append(
            f"{counted(len(unheeded), 'control')} without a pass under cells that were judged all "
            f"the same: {listed(unheeded)}"
        )
    return reasons


def too_few_seeds(matrix: Matrix, needed: int) -> list[str]:
    """That there are too few fine-tunings to say what the next one will do; known beforehand."""
    seeds: dict[str, set[int]] = {}
    for tuning in matrix.tunings:
        seeds.setdefault(f"{tuning.profile}.{tuning.dataset}", set()).add(tuning.seed)
    few = {name: len(found) for name, found in seeds.items() if len(found) < needed}
    if not few:
        return []
    return [
        f"R needs {needed} fine-tuning seeds, but has {min(few.values())} of {listed(list(few))}; "
        "give --spqr-seeds more, or lower --spqr-min-tuning-seeds"
    ]


def counted(n: int, noun: str) -> str:
    """``1 cell``, ``3 cells``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: Sequence[str], between: str = ", ") -> str:
    """The first three names, and how many more there are."""
    rest = len(names) - _SHOWN
    return between.join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
