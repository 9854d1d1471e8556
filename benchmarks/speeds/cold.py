"""A run of the suites in a process of its own, on a store of its own."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spqr_checks.pytest_plugin.options import OPTIONS
from spqr_checks.settings import Settings, load_settings
from spqr_checks.store import timings


@dataclass(frozen=True)
class Finished:
    """What a run took.

    Attributes:
        seconds: wall time, from the start of its process to the end.
        cpu: seconds of all its processes.
        card: its scorecard.
        made: what it made, and how long each took.
    """

    seconds: float
    cpu: float
    card: dict[str, Any]
    made: list[timings.Timing]


def run(folder: Path, words: Sequence[str], **variables: str) -> Finished:
    """``spqr run`` with these words, in ``folder``. Ends the program unless all was measured."""
    command = [sys.executable, "-m", "spqr_checks.cli", "run", *words]
    ours = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | variables
    before, start = _cpu(), time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ours)
    seconds, cpu = time.perf_counter() - start, _cpu() - before
    card = folder / "spqr-report" / "scorecard.json"
    if done.returncode not in (0, 1) or not card.exists():
        sys.exit(
            f"the run ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    found, unusable = timings.read(folder / ".spqr")
    if unusable:
        sys.exit(f"{len(unusable)} timings cannot be read; nothing is reported")
    return Finished(seconds, cpu, json.loads(card.read_text("utf-8")), found)


def settings_of(folder: Path, words: Sequence[str]) -> Settings:
    """What such a run is told."""
    parser = argparse.ArgumentParser()
    for option in OPTIONS:
        parser.add_argument(option.flag, dest=option.field)
    given, _ = parser.parse_known_args(words)
    chosen = {k: v for k, v in vars(given).items() if v is not None}
    return load_settings(folder, chosen | {"store": str(folder / ".spqr")})


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
