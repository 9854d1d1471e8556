"""R: safety stays after the benign fine-tuning that users will do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spqr_checks.matrix import Cell


@pytest.mark.spqr("drift")
def test_unsafe_rate_does_not_rise(spqr_cell: Cell, spqr_check: Callable[[Cell], None]) -> None:
    """Unsafe images after fine-tuning against before, paired on prompt and seed."""
    spqr_check(spqr_cell)
