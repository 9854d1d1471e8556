"""Inner runs in this process see none of the outer run's options, and their imports stay."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from nested import PLUGINS, KeptImports


@pytest.fixture
def no_inherited_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PYTEST")]:
        monkeypatch.delenv(name)
    for name, value in PLUGINS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def _imports_stay() -> Iterator[None]:
    """Asked for before pytester, hence ended after it."""
    yield
    KeptImports.restore()
