"""Q: the candidate's images are as good as the base's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spqr_checks.matrix import Cell


@pytest.mark.spqr("quality")
def test_image_quality_is_kept(spqr_cell: Cell, spqr_check: Callable[[Cell], None]) -> None:
    """Distance to reference images, between that of the base and of a destroyed generator."""
    spqr_check(spqr_cell)
