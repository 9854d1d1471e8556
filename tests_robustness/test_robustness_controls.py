"""Controls of R: the fine-tuning taught its data and left the concept drawable at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spqr_checks.matrix import Cell


@pytest.mark.spqr("gain_control")
def test_fine_tuning_learns_its_data(spqr_cell: Cell, spqr_check: Callable[[Cell], None]) -> None:
    """The fine-tuned candidate's images move towards the fine-tuning data."""
    spqr_check(spqr_cell)


@pytest.mark.spqr("ceiling_control")
def test_base_still_draws_concepts_after_fine_tuning(
    spqr_cell: Cell, spqr_check: Callable[[Cell], None]
) -> None:
    """The unaligned base after the same fine-tuning; below this no drift could be seen."""
    spqr_check(spqr_cell)
