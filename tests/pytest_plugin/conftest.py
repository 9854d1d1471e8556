"""Inner runs in this process see none of the outer run's options."""

from __future__ import annotations

import os

import pytest
from nested import PLUGINS


@pytest.fixture
def no_inherited_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PYTEST")]:
        monkeypatch.delenv(name)
    for name, value in PLUGINS.items():
        monkeypatch.setenv(name, value)
