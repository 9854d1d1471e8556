"""Q: the candidate's images are as good as the base's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spqr_checks.matrix import Cell


@pytest.mark.spqr("quality")
def test_image_quality_is_kept(cell: Cell, check: Callable[[Cell], None]) -> None:
    """Distance to reference images, between that of the base and of a destroyed generator."""
    check(cell)
