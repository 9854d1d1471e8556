"""Claims of users' own tests: reported, decided and gated with the cells, never scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spqr_checks.scoring.cell_result import CellResult


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


def with_results(own: Sequence[OwnCheck], results: Sequence[CellResult]) -> tuple[OwnCheck, ...]:
    """The checks with results that were decided together with others."""
    return tuple(replace(c, result=r) for c, r in zip(own, results, strict=True))
