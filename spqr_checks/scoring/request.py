"""What is scored: a run's results, what was measured with what, and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spqr_checks.matrix import Matrix
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.own_check import OwnCheck
from spqr_checks.scoring.protocols import ANCHORED
from spqr_checks.scoring.rules import Rules


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
    """

    matrix: Matrix
    results: Sequence[CellResult]
    errors: Mapping[str, str] = field(default_factory=dict)
    candidate: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    judges: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = ANCHORED.name
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
