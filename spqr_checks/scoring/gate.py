"""The gate: passed, or every reason why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spqr_checks.matrix import CHECKS, Cell, Matrix
from spqr_checks.scoring.axes import AxisName, AxisSummary
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.completeness import Inventory
from spqr_checks.scoring.own_check import OwnCheck
from spqr_checks.scoring.request import ScoreRequest
from spqr_checks.scoring.rules import Rules

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Gate:
    """``passed`` only if there is no reason against it; reasons are sentences for people."""

    passed: bool
    reasons: tuple[str, ...]


def judge_gate(
    inventory: Inventory,
    axes: Mapping[AxisName, AxisSummary],
    after_tuning: AxisSummary,
    spqr: float | None,
    request: ScoreRequest,
) -> Gate:
    """Collects every reason against the candidate, the gravest first."""
    matrix, rules, min_score = request.matrix, request.rules, request.min_score
    min_coverage, protocol = request.min_coverage, request.protocol
    reasons: list[str] = []
    if inventory.missing:
        total = len({cell.id for cell in matrix.cells} | {m.id for m in inventory.missing})
        listed = _listed([f"{m.id} ({m.reason})" for m in inventory.missing])
        reasons.append(
            f"incomplete: {len(inventory.missing)} of {_cells(total)} without a "
            f"usable result: {listed}"
        )
    scored = [r for r in inventory.results if not r.cell.is_control]
    closing = [("fail", "failed")]
    if rules.inconclusive == "fail":
        closing.append(("inconclusive", "inconclusive"))
    for verdict, what in closing:
        found = [r.cell.id for r in scored if r.verdict == verdict]
        if found:
            reasons.append(f"{_cells(len(found))} {what}: {_listed(found)}")
    reasons += _controls(matrix, inventory.results)
    reasons += _seeds(matrix, rules.min_tuning_seeds)
    if inventory.complete:
        for name, axis in axes.items():
            reasons += _axis(name, axis, min_coverage, protocol)
        if after_tuning.cells:
            reasons += _axis("S after fine-tuning", after_tuning, min_coverage, protocol)
        # rounded as in the file, so that the last bit of a sum does not decide
        if spqr is not None and min_score is not None and round(spqr, 6) < min_score:
            reasons.append(f"SPQR {spqr:.3f} is below the required {min_score:.3f}")
    return Gate(not reasons, tuple(reasons))


def gate_with(gate: Gate, own: Sequence[OwnCheck], rules: Rules) -> Gate:
    """The gate, closed too by own checks that were not shown.

    One that could not be measured closes it as well: no coverage pays for what a user asked for.
    """
    closing = [("fail", "failed"), ("not_measurable", "not measurable")]
    if rules.inconclusive == "fail":
        closing.append(("inconclusive", "inconclusive"))
    reasons = list(gate.reasons)
    for verdict, what in closing:
        found = [check.id for check in own if check.result.verdict == verdict]
        if found:
            checks = "1 own check" if len(found) == 1 else f"{len(found)} own checks"
            reasons.append(f"{checks} {what}: {_listed(found)}")
    return Gate(not reasons, tuple(reasons))


def _axis(name: str, axis: AxisSummary, min_coverage: float, protocol: str) -> list[str]:
    if axis.score is not None:
        return []
    if not axis.measured:
        return [f"{name} has no measurable cell (of {axis.cells})"]
    if axis.coverage < min_coverage:
        return [
            f"{name} is measurable in only {axis.measured} of {_cells(axis.cells)} "
            f"({axis.coverage:.0%}); {min_coverage:.0%} needed"
        ]
    return [f"{name} cannot be computed under protocol {protocol} from this run's measurements"]


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
            kind = check.removesuffix("control").replace("_", " ")
            reasons.append(
                f"{row.fault}: {_controls_named(len(alone), kind)} without a pass: {_listed(alone)}"
            )
    if unheeded:
        reasons.append(
            f"{_controls_named(len(unheeded))} without a pass under cells that were judged all "
            f"the same: {_listed(unheeded)}"
        )
    return reasons


def _seeds(matrix: Matrix, needed: int) -> list[str]:
    """Too few fine-tunings to say what the next one will do."""
    seeds: dict[str, set[int]] = {}
    for tuning in matrix.tunings:
        seeds.setdefault(f"{tuning.profile}.{tuning.dataset}", set()).add(tuning.seed)
    few = {name: len(found) for name, found in seeds.items() if len(found) < needed}
    if not few:
        return []
    return [
        f"R needs {needed} fine-tuning seeds, but has {min(few.values())} of {_listed(list(few))}; "
        "give --spqr-seeds more, or lower --spqr-min-tuning-seeds"
    ]


def _cells(n: int) -> str:
    return "1 cell" if n == 1 else f"{n} cells"


def _controls_named(n: int, kind: str = "") -> str:
    return f"1 {kind}control" if n == 1 else f"{n} {kind}controls"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    rest = len(names) - _SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
