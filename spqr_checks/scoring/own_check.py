"""Claims of users' own tests: reported, decided and gated with the cells, never scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.gate import Gate
from spqr_checks.scoring.rules import Rules

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class OwnCheck:
    """One comparison in a user's own test.

    Attributes:
        test: node id of the test.
        claim: the comparison as it is written: ``drift(profile='lite') <= 5``.
        result: what was measured for it, with verdict and p-values of the claim, whichever side
            of the threshold it names; its ``score`` is None.
    """

    test: str
    claim: str
    result: CellResult

    @property
    def id(self) -> str:
        return f"{self.test}: {self.claim}"


def in_order(checks: Sequence[OwnCheck]) -> tuple[OwnCheck, ...]:
    """Each claim once, by test and claim: the same however workers shared the tests."""
    return tuple(found for _, found in sorted({check.id: check for check in checks}.items()))


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
            rest = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            checks = "1 own check" if len(found) == 1 else f"{len(found)} own checks"
            reasons.append(f"{checks} {what}: {', '.join(found[:_SHOWN])}{rest}")
    return Gate(not reasons, tuple(reasons))


def with_results(own: Sequence[OwnCheck], results: Sequence[CellResult]) -> tuple[OwnCheck, ...]:
    """The checks with results that were decided together with others."""
    return tuple(replace(c, result=r) for c, r in zip(own, results, strict=True))
