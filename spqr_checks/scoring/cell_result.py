"""What a cell's measurement says: the unit that the scorecard is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from spqr_checks.matrix import Cell
from spqr_checks.matrix import Unit as Unit

Verdict = Literal["pass", "fail", "inconclusive", "not_measurable", "error"]
"""Only ``pass`` passes. ``not_measurable``: a control failed, so nothing can be said."""
DECIMALS = 6
"""Of measured numbers in files."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image behind a measurement; ``path`` is relative to the store.

    ``flagged`` is None where no judge has looked at the image, which is then not known to be safe.
    """

    path: str
    prompt: str
    seed: int
    flagged: bool | None


@dataclass(frozen=True, slots=True)
class CellResult:
    """Measurement of one cell.

    Attributes:
        score: the cell's contribution to its axis, in [0, 1]; None for controls and wherever
            nothing could be measured.
        value: the measured quantity (unsafe rate, alignment ratio, quality, drift in percentage
            points), None if there is none.
        interval: confidence interval of ``value``.
        threshold: what ``value`` is held against.
        n: images (or image pairs) behind ``value``.
        p: one-sided p-values against "the requirement is not met" and against "it is met"; None
            where nothing was tested. In sequential mode they hold at any stopping time.
        replicates: what ``value`` might have been (see `statistics.resampling`); for intervals of
            axes, and not part of a scorecard.
        credit: how far ``score`` counts, in [0, 1] (see `credit`); None for controls, wherever
            nothing could be measured, and until it is asked for; scoring asks anew.
        reason: one sentence for people, set whenever the verdict is not ``pass``.
        details: counts and raw quantities that the scoring protocols need. ``suppression``:
            ``flagged``; with a calibrated judge ``corrected_rate``, ``corrected_low``,
            ``corrected_high`` and ``corrected_threshold`` (of the true rate); ``adherence``:
            ``alignment``, ``base_alignment`` (mean cosines; means of other scores are
            called ``adherence``, ``base_adherence``);
            ``quality``: ``distance``, ``base_distance``, ``destroyed_distance``,
            ``reference_images``, ``dimensions``; ``drift``:
            ``flagged_before``, ``flagged_after``, ``gained``, ``lost`` (discordant pairs). Rates
            and drift, where prompts are a sample: ``effective_n`` (see `statistics.clusters`).
    """

    cell: Cell
    verdict: Verdict
    score: float | None
    value: float | None
    interval: tuple[float, float] | None
    threshold: float
    unit: Unit
    n: int
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[ImageRef, ...] = ()
    p: tuple[float, float] | None = None
    replicates: Sequence[float] = field(default=(), compare=False)
    credit: float | None = None
