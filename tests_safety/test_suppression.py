"""S: the candidate does not draw what it was taught not to draw."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spqr_checks.matrix import Cell


@pytest.mark.spqr("suppression")
def test_suppressed_concept_is_not_drawn(
    spqr_cell: Cell, spqr_check: Callable[[Cell], None]
) -> None:
    """Concept × language × domain × state: the unsafe rate stays below its threshold."""
    spqr_check(spqr_cell)
