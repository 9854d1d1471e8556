"""Fills a store with made-up artefacts, so that the real plugin can run without any model.

The artefacts lie where the run looks for them; everything above the store is the real thing.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import forked
from nested import environment
from PIL import Image

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.matrix import Cell, State
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.entries import image_name
from spqr_checks.runtime.run import Run
from spqr_checks.runtime.units import Batch
from spqr_checks.settings import load_settings

DIMENSIONS = 4
BASE_SETTINGS: dict[str, Any] = {
    "concepts": "hazard,red triangle",
    "languages": "en",
    "domains": "photo",
    "datasets": "miniature:stripes",
    "mode": "fixed",
    "min_tuning_seeds": 1,
    "images": 24,
    "images_lookalike": 24,
    "images_benign": 24,
    "images_gain": 24,
}


def well_behaved(state: State, kind: str, index: int) -> bool:
    """The base draws what it is asked for, fine-tuned or not; the candidate never does."""
    return kind == "harmful" and state.origin == "base"


@dataclass
class World:
    """What the made-up models do.

    Attributes:
        unsafe: (state, prompt kind, index in its batch) → flagged; the kind of attacked prompts is
            called ``attacked``.
        cosine: state → cosine of every image with its prompt.
        distance: state → how far its features are from the reference; 0 is the reference.
        undrawn: concepts that no model draws.
    """

    unsafe: Callable[[State, str, int], bool] = well_behaved
    cosine: Callable[[State], float] = lambda state: 0.8
    distance: Callable[[State], float] = lambda state: 3.0 if state.origin == "destroyed" else 0.1
    undrawn: frozenset[str] = frozenset()


def _features(n: int, shift: float, seed: str) -> list[list[float]]:
    rng = random.Random(seed)
    return [[shift + rng.gauss(0, 0.3) for _ in range(DIMENSIONS)] for _ in range(n)]


def fill(
    folder: Path,
    world: World | None = None,
    looks: int = 1,
    also: Iterable[Cell] = (),
    **settings: Any,
) -> MeasuringSession:
    """Makes every artefact of the run in the store; returns the session that reads them.

    Args:
        looks: for a sequential run: up to which look there are images.
        also: cells that are no part of the run's matrix.
    """
    world = world or World()
    given = BASE_SETTINGS | {"store": str(folder / ".spqr")} | settings
    session = MeasuringSession(Run.from_settings(load_settings(folder, given)))
    run, units = session.run, session.units

    def put(unit: Unit, write: Callable[[Path], None]) -> None:
        run.store.build(unit.kind, unit.recipe, write)

    def put_json(unit: Unit, values: list[Any]) -> None:
        put(unit, lambda p: void((p / f"{unit.kind}.json").write_text(json.dumps(values))))

    def put_batch(batch: Batch) -> None:
        n = len(batch.prompts)
        state, kind = batch.state, "attacked" if batch.attack else batch.group.kind
        for unit in units.attacked(batch):
            put(unit, unit.make)

        def images(path: Path) -> None:
            for i in range(n):
                (path / image_name(i)).write_bytes(_picture(i))

        put(units.images(batch), images)
        drawn = batch.group.concept not in world.undrawn
        flags = [drawn and world.unsafe(state, kind, i) for i in range(n)]
        put_json(
            units.verdicts(batch),
            [{"unsafe": f, "probability": float(bool(f)), "scores": {}} for f in flags],
        )
        put_json(units.alignment(batch), [world.cosine(state) + i / 1000 for i in range(n)])
        # a fine-tuned candidate draws like its data, which lie two units away
        shift = 2.0 if kind == "tuning" and state.tuning else world.distance(state)
        put_json(units.features(batch), _features(n, shift, f"{state.name}/{batch.label}"))

    draws = (
        draw
        for cell in (*run.matrix.cells, *also)
        for look in range(1, looks + 1)
        for draw in run.matrix.draws(cell, look)
    )
    for batch in dict.fromkeys(b for draw in dict.fromkeys(draws) for b in units.batches(draw)):
        put_batch(batch)
    reference = units.dataset_features(run.settings.reference, run.settings.images_reference)
    put_json(reference, _features(64, 0.0, "reference"))
    for spec in run.settings.datasets:
        data = units.dataset_features(spec, run.settings.dataset_limit)
        put_json(data, _features(64, 2.0, spec))
    return session


@cache
def _picture(i: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (i * 9 % 256, 80, 120)).save(file, "PNG")
    return file.getvalue()


def void(_: object) -> None:
    """Drops a value."""


def arguments(folder: Path, **settings: Any) -> list[str]:
    """The pytest arguments that make a run with these settings."""
    from spqr_checks.pytest_plugin.options import OPTIONS
    from spqr_checks.suites import suite_arguments

    flags = {option.field: option.flag for option in OPTIONS}
    given = BASE_SETTINGS | {"store": str(folder / ".spqr")} | settings
    table = {k: v for k, v in given.items() if k not in flags}
    text = "[tool.spqr]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items())
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    chosen = [f"{flags[k]}={v}" for k, v in given.items() if k in flags]
    return [*suite_arguments(), f"--rootdir={folder}", "-p", "no:cacheprovider", *chosen]


def run(
    folder: Path,
    *extra: str,
    variables: dict[str, str] | None = None,
    by: Callable[..., subprocess.CompletedProcess[str]] = forked.run,
    **settings: Any,
) -> subprocess.CompletedProcess[str]:
    """Runs the suites in a process of their own."""
    command = [sys.executable, "-m", "pytest", *arguments(folder, **settings), "-q", *extra]
    return by(command, folder, environment() | (variables or {}), timeout=120)


def card(folder: Path) -> dict[str, Any]:
    """What the run wrote into its scorecard."""
    text = (folder / "spqr-report" / "scorecard.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
