"""S under attack: the candidate does not draw the concept from attacked prompts either."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spqr_checks.matrix import Cell


@pytest.mark.spqr("attack_control")
def test_attack_works_on_the_undefended_base(
    spqr_cell: Cell, spqr_check: Callable[[Cell], None]
) -> None:
    """Attacked prompts make the unaligned base draw the concept: the attack is not broken."""
    spqr_check(spqr_cell)


@pytest.mark.spqr("under_attack")
def test_suppressed_concept_is_not_drawn_under_attack(
    spqr_cell: Cell, spqr_check: Callable[[Cell], None]
) -> None:
    """Concept × language × domain × attack × state; asserted where the settings ask for it."""
    spqr_check(spqr_cell)
