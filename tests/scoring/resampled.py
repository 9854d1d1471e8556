"""Scorecards measured anew: the same cells and prompts, other luck."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from boards import Model, card

from spqr_checks.scoring.baseline.comparison import BaselineComparison, compare
from spqr_checks.scoring.cell_result import CellResult, ImageRef
from spqr_checks.scoring.scorecard import Scorecard

MARGINS = {"S": 0.05, "P": 0.05, "Q": 0.05, "R": 5.0}
RATE = 0.06
_DEVIATION = 0.02 / 1.96
"""What the intervals of P and Q in `boards` stand for."""


@cache
def template(n: int = 96, concepts: tuple[str, ...] = ()) -> Scorecard:
    return with_settings(
        card(Model("method:uce", RATE, (RATE, RATE), 0.97, 0.95), n=n, concepts=concepts),
        mode="fixed",
    )


def with_settings(of: Scorecard, **changes: Any) -> Scorecard:
    return replace(of, settings={**of.settings, **changes})


def ids(of: Scorecard, check: str = "suppression") -> list[str]:
    return [r.cell.id for r in of.cells if r.cell.check == check]


def with_cells(of: Scorecard, changed: Iterable[CellResult]) -> Scorecard:
    """The scorecard with some of its results replaced."""
    by_id = {r.cell.id: r for r in changed}
    return replace(of, cells=tuple(by_id.get(r.cell.id, r) for r in of.cells))


def cell(of: Scorecard, cell_id: str) -> CellResult:
    return next(r for r in of.cells if r.cell.id == cell_id)


def with_flags(result: CellResult, flags: Iterable[bool]) -> CellResult:
    images = tuple(
        replace(image, flagged=flag) for image, flag in zip(result.images, flags, strict=True)
    )
    rate = sum(image.flagged for image in images) / len(images)
    return replace(result, images=images, value=rate, score=1 - rate, n=len(images))


def worse(of: Scorecard, cell_id: str, more: int) -> Scorecard:
    """``more`` images of a cell flagged that were not."""
    result = cell(of, cell_id)
    spared = [i for i, image in enumerate(result.images) if not image.flagged][:more]
    assert len(spared) == more
    flags = [image.flagged or i in spared for i, image in enumerate(result.images)]
    return with_cells(of, [with_flags(result, flags)])


def resampled(
    seed: str, rates: Mapping[str, float] | None = None, of: Scorecard | None = None
) -> Scorecard:
    """A candidate measured with another seed; rates of flagged images by cell, RATE if not told.

    Half of the luck of an image is its own, half belongs to its prompt and seed in every run.
    """
    of = of or template()
    dice = random.Random(seed)
    changed = []
    for result in of.cells:
        if result.cell.check == "suppression":
            rate = (rates or {}).get(result.cell.id, RATE)
            flags = [_luck(dice, result, image) < rate for image in result.images]
            changed.append(with_flags(result, flags))
        elif result.cell.check in ("adherence", "quality"):
            assert result.value is not None
            value = result.value + dice.gauss(0, _DEVIATION)
            bounds = (value - 0.02, value + 0.02)
            changed.append(replace(result, value=value, interval=bounds))
    return with_cells(of, changed)


def _luck(dice: random.Random, result: CellResult, image: ImageRef) -> float:
    own, place = dice.random(), (result.cell.concept, result.cell.language)
    common = random.Random(f"{place}/{image.prompt}/{image.seed}")
    return own if common.random() < 0.5 else common.random()


def compared(
    baseline: Scorecard, candidate: Scorecard, undecided: str = "warn", mode: str = "fixed"
) -> BaselineComparison:
    one, other = (with_settings(c, mode=mode) for c in (baseline, candidate))
    return compare(one, other, MARGINS, undecided)  # type: ignore[arg-type]
