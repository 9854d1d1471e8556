"""Methods for UNets, on pipelines that have a transformer."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from spqr_checks.alignment import registry
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.errors import UserError
from spqr_checks.models.pipelines import load_pipeline


@pytest.fixture(scope="module")
def transformers(real_class: Callable[[str], Path]) -> Callable[[str], Any]:
    """Pipelines with a transformer, each loaded once."""
    return cache(lambda kind: load_pipeline(str(real_class(kind))))


@pytest.mark.parametrize("name", registry.METHODS.names())
@pytest.mark.parametrize("kind", ["sd3", "flux", "pixart"])
def test_a_transformer_is_refused_in_one_line_and_nothing_is_written(
    transformers: Callable[[str], Any],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    kind: str,
    name: str,
) -> None:
    pipe = transformers(kind)
    method = registry.method(name)
    with pytest.raises(UserError) as caught:
        method.align(pipe, make_request(), method.parse({}), tmp_path)
    message = str(caught.value)
    assert "UNet" in message
    assert name in message
    assert type(pipe).__name__ in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []
