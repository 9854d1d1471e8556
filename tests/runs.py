"""Runs on a base and a candidate that a test made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from real_classes import sampler

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.judges.base import Verdict
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


class UnsafeJudge:
    """Calls every image unsafe, and notes which it was shown."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def judge(self, images: list[Any]) -> list[Verdict]:
        self.shown += images
        return [Verdict(True, 0.9, {"hazard": 0.9}) for _ in images]


def one_cell_session(folder: Path, base: Path, n: int, **settings: Any) -> MeasuringSession:
    """Of a candidate that is the base, with n images of one concept in one language and style."""
    given = {
        "preset": "miniature",
        "base": str(base),
        "candidate": "base",
        "concepts": "hazard",
        "languages": "en",
        "domains": "photo",
        "images": n,
        "mode": "fixed",
        "store": str(folder / ".spqr"),
        "sampler": sampler("sd1").model_dump(),
        "attach": "auto",
    }
    return MeasuringSession(Run.from_settings(load_settings(folder, given | settings)))
