"""Scorecards of finished runs in the store, so that an unchanged run need not be read again.

Only runs with a fixed number of images have one: there it is known beforehand which artefacts every
cell reads. A sequential run learns that as it goes.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import UserError
from spqr_checks.hashing import digest, library_version
from spqr_checks.runtime.engines import Unit
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.serialize import from_json
from spqr_checks.source_code import code_of
from spqr_checks.store.store import Recipe, entry_key

_KIND, _FILE = "scorecards", "scorecard.json"
_LIBRARIES = ("numpy", "scipy")
"""What turns artefacts into a scorecard; what makes artefacts is in their own recipes."""


def keep(session: MeasuringSession, card: Scorecard, text: str) -> bool:
    """Puts a finished run's scorecard, as text, into the store; False for a run that is never kept.

    A run without a number for want of a cell is never kept, nor is one whose store takes nothing
    any more: it is only read again.
    """
    recipe = _recipe(session)
    if recipe is None or not card.complete:
        return False

    def make(folder: Path) -> None:
        (folder / _FILE).write_text(text, encoding="utf-8")

    try:
        session.run.store.build(_KIND, recipe, make, label="scorecard")
    except UserError:
        return False
    return True


def kept(session: MeasuringSession) -> Scorecard | None:
    """The scorecard that the run would come to, if it has been run and nothing has changed.

    Nothing: not one artefact that a cell would read (and so neither weights, prompts, data, judges
    nor seeds), no setting, no line of the code that scores.

    Raises:
        UserError: as `MeasuringSession.validate`.
    """
    recipe = _recipe(session)
    if recipe is None:
        return None
    folder = session.run.store.path(_KIND, recipe)
    if folder is None:
        return None
    return from_json((folder / _FILE).read_text(encoding="utf-8"))


def _recipe(session: MeasuringSession) -> Recipe | None:
    """All that the scorecard follows from; None where that is not known beforehand."""
    run = session.run
    if run.settings.mode != "fixed":
        return None
    keys: dict[Unit, str] = {}
    cells: list[Any] = []
    for cell in run.matrix.cells:
        read = dict.fromkeys(session.reads(cell, 1))
        for unit in read.keys() - keys.keys():
            keys[unit] = entry_key(unit.kind, unit.recipe)
        cells.append([cell.id, digest(asdict(cell)), sorted(keys[unit] for unit in read)])
    return {
        "cells": digest(cells),
        "described": digest(session.describe()),
        "settings": run.settings.measured(),
        "code": code_of(keep),
        "libraries": {name: library_version(name) for name in _LIBRARIES},
    }
