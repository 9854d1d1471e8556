"""A store of its own for every test; waiting for the disk only where processes are real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from spqr_checks.store.store import Store


@pytest.fixture(autouse=True, scope="module")
def _no_disk() -> Iterator[None]:
    """Waiting for the disk is most of a build; tests with real processes do wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
