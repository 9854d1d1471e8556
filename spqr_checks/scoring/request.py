"""What is scored: a run's results, users' own claims, and what the gate asks of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from spqr_checks.matrix import Matrix
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.protocols import ANCHORED

Multiplicity = Literal["holm", "benjamini-hochberg", "none"]


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of the gate beyond each cell's own threshold.

    Attributes:
        level: confidence of intervals and verdicts; 1 − level is the error of a verdict.
        multiplicity: how the errors of failing one of many cells are bounded together.
        inconclusive: whether an undecided cell closes the gate (``fail``) or is only listed.
        min_tuning_seeds: fine-tuning seeds of each profile and data set that a verdict on R needs.
        attacks: whether cells under attack are asserted, or only reported.
    """

    level: float = 0.95
    multiplicity: Multiplicity = "none"
    inconclusive: Literal["fail", "warn"] = "fail"
    min_tuning_seeds: int = 1
    attacks: bool = False


@dataclass(frozen=True, slots=True)
class OwnCheck:
    """One comparison in a user's own test: reported, decided and gated with the cells, not scored.

    Attributes:
        test: node id of the test.
        claim: the comparison as it is written: ``drift(profile='lite') <= 5``.
        result: what was measured for it, with verdict and p-values of the claim, whichever side
            of the threshold it names; its ``score`` is None.
        place: of the claim among those of its test, from 1.
    """

    test: str
    claim: str
    result: CellResult
    place: int = 1

    @property
    def id(self) -> str:
        return f"{self.test}: {self.claim}"


def spent(place: int) -> float:
    """The part of its test's share of the error that a claim may spend, by its place from 1.

    6 / (π² place²), which sums to 1 over however many claims there will be (alpha spending over a
    sequence of hypotheses: Foster and Stine 2008, JRSS B 70:429).
    """
    return 6 / (math.pi * place) ** 2


def in_order(checks: Sequence[OwnCheck]) -> tuple[OwnCheck, ...]:
    """Each claim once, by test and claim: the same however workers shared the tests."""
    return tuple(found for _, found in sorted({check.id: check for check in checks}.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """A run to be scored; see `scorecard.score`.

    Attributes:
        results: in any order; the scorecard does not depend on it.
        errors: cell id → why its test ended in an error; such a cell makes the run incomplete.
        candidate, base, judges, settings: what was measured with what, for the scorecard.
        protocol: name of a protocol of `protocols`.
        min_score: gated SPQR needed to pass the gate; None: any.
        min_coverage: share of an axis's cells that must be measurable for it to have a value.
        rules: of the gate; none beyond the cells' own thresholds if not given.
        own: claims of users' own tests. Without any cell in the matrix they alone open the gate.
        own_errors: what of these could not be measured, and why; it makes the run incomplete.

    Raises:
        ValueError: a minimum outside 0 to 1.
    """

    matrix: Matrix
    results: Sequence[CellResult]
    errors: Mapping[str, str] = field(default_factory=dict)
    candidate: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    judges: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = ANCHORED
    min_score: float | None = None
    min_coverage: float = 0.5
    rules: Rules = field(default_factory=Rules)
    own: Sequence[OwnCheck] = ()
    own_errors: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("min_score", "min_coverage"):
            limit = getattr(self, name)
            if limit is not None and not 0 <= limit <= 1:
                raise ValueError(f"{name} is {limit}, not a number from 0 to 1")
