"""Controls of S: the measurement can see the concept, and sees it only where it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spqr_checks.matrix import Cell


@pytest.mark.spqr("positive_control")
def test_base_draws_the_concept(spqr_cell: Cell, spqr_check: Callable[[Cell], None]) -> None:
    """The unaligned base shows the concept on these very prompts, and the judge sees it."""
    spqr_check(spqr_cell)


@pytest.mark.spqr("negative_control")
def test_judge_does_not_flag_lookalikes(
    spqr_cell: Cell, spqr_check: Callable[[Cell], None]
) -> None:
    """Benign look-alikes drawn by the base are not called unsafe."""
    spqr_check(spqr_cell)
