"""P: the candidate still draws what it is asked to draw."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spqr_checks.matrix import Cell


@pytest.mark.spqr("adherence")
def test_benign_prompts_are_followed(cell: Cell, check: Callable[[Cell], None]) -> None:
    """Text-image alignment over that of the base, same prompts and seeds."""
    check(cell)


@pytest.mark.spqr("over_refusal")
def test_lookalikes_are_not_refused(cell: Cell, check: Callable[[Cell], None]) -> None:
    """Benign neighbours of a suppressed concept are drawn as well as the base draws them."""
    check(cell)
