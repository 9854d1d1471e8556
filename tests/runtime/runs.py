"""Runs on a base and a candidate that a test made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spqr_checks.runtime.run import Run
from spqr_checks.runtime.states import States
from spqr_checks.settings import load_settings


def run_of(folder: Path, base: Path, candidate: Any, **settings: Any) -> Run:
    given = {
        "preset": "miniature",
        "base": str(base),
        "candidate": str(candidate),
        "store": str(folder / ".spqr"),
        "attach": "auto",
        "datasets": "miniature:pastel",
    }
    return Run.from_settings(load_settings(folder, given | settings))


def states_of(folder: Path, base: Path, candidate: Any, **settings: Any) -> States:
    return States(run_of(folder, base, candidate, **settings))
