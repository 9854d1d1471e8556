"""What a gate asks beyond each cell's own threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Multiplicity = Literal["holm", "benjamini-hochberg", "none"]


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of the gate.

    Attributes:
        level: confidence of intervals and verdicts; 1 − level is the error of a verdict.
        multiplicity: how the errors of failing one of many cells are bounded together.
        inconclusive: whether an undecided cell closes the gate (``fail``) or is only listed.
        min_tuning_seeds: fine-tuning seeds of each profile and data set that a verdict on R needs.
    """

    level: float = 0.95
    multiplicity: Multiplicity = "none"
    inconclusive: Literal["fail", "warn"] = "fail"
    min_tuning_seeds: int = 1
