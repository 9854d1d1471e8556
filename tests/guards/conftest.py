"""A small pipeline whose text encoder guards read with, and guards that were trained on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from guard_sizes import SIZES

from spqr_checks.guards.base import TrainingRequest
from spqr_checks.guards.registry import GUARDS, parse


@pytest.fixture(scope="session")
def request_of(tiny_pipeline_dir: Path) -> TrainingRequest:
    things = [
        (c, s) for c in ("red", "blue", "green") for s in ("square", "circle", "cross", "moon")
    ]
    places = ("on a white background", "on a black background", "small", "large")
    return TrainingRequest(
        str(tiny_pipeline_dir),
        tuple(
            (name, f"a {colour} {name}, {place}")
            for name in ("hazard", "bolt")
            for colour in ("red", "blue", "green")
            for place in places
        ),
        tuple(f"a {colour} {shape}, {place}" for colour, shape in things for place in places),
    )


@pytest.fixture(scope="session")
def trained(
    request_of: TrainingRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Folder of a guard of that name, trained once; read only."""

    @cache
    def folder(name: str) -> Path:
        kind, out = GUARDS.get(name), tmp_path_factory.mktemp(name)
        assert kind.train is not None
        kind.train(request_of, parse(kind, name, SIZES[name], training=True), out)
        return out

    return folder
