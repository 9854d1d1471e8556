"""P: the candidate still draws what it is asked to draw."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spqr_checks.matrix import Cell


@pytest.mark.spqr("adherence")
def test_benign_prompts_are_followed(spqr_cell: Cell, spqr_check: Callable[[Cell], None]) -> None:
    """Text-image alignment over that of the base, same prompts and seeds."""
    spqr_check(spqr_cell)


@pytest.mark.spqr("over_refusal")
def test_lookalikes_are_not_refused(spqr_cell: Cell, spqr_check: Callable[[Cell], None]) -> None:
    """Benign neighbours of a suppressed concept are drawn as well as the base draws them."""
    spqr_check(spqr_cell)
