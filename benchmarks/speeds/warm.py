"""Warm runs: collecting cells, measuring what exists, and what a further worker costs."""

from __future__ import annotations

import argparse
import csv
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nested import environment
from warm import arguments as run_arguments
from warm import fill

from speeds.rows import Row
from spqr_checks.miniature.vocabulary import LABELS

_LANGUAGES, _DOMAINS, _CELLS = 7, 4, 3
"""Of each concept there are so many prompts, and about so many cells of each prompt."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--collected", type=int, default=10_000, help="cells that are collected")
    parser.add_argument("--measured", type=int, default=1_000, help="cells that are measured")
    parser.add_argument("--repeats", type=int, default=3)


def settings(folder: Path, cells: int) -> dict[str, Any]:
    """A prompt file with about so many cells, and what chooses all of it."""
    names = [name for name in LABELS if " " in name]  # what the miniature's judge knows
    concepts = names[: max(1, round(cells / (_LANGUAGES * _DOMAINS * _CELLS)))]
    path = folder / "prompts.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "kind", "concept", "category", "language", "domain"])
        for concept in concepts:
            for language in range(_LANGUAGES):
                for domain in range(_DOMAINS):
                    name = f"{concept}/{language}/{domain}"
                    row = [name, f"prompt {name}", "harmful", concept, concept.split()[0]]
                    writer.writerow([*row, f"l{language}", f"d{domain}"])
    benign = folder / "benign.txt"
    benign.write_text("\n".join(f"a quiet view {i}" for i in range(8)), encoding="utf-8")
    return {
        "prompts": str(path),
        "datasets": f"self:{benign}",
        "concepts": ",".join(concepts),
        "languages": ",".join(f"l{i}" for i in range(_LANGUAGES)),
        "domains": ",".join(f"d{i}" for i in range(_DOMAINS)),
        "seeds": "0",
    }


def measure(options: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder, n = Path(name), options.repeats
        given = settings(folder, options.collected)
        command = [sys.executable, "-m", "pytest", *run_arguments(folder, **given), "-q"]
        collect, _, said = _median([*command, "--collect-only"], folder, n)
        rows = [Row(f"collect: {said}", "s", collect, goal="< 3", n=n)]
        given = settings(folder, options.measured)
        fill(folder, **given)
        command = [sys.executable, "-m", "pytest", *run_arguments(folder, **given), "-q"]
        warm, _, said = _median(command, folder, n)
        rows.append(Row(f"warm: {said}", "s", warm, goal="< 5", n=n))
        pairs = [
            (_further(command, folder), _further(_bare(folder, said), folder)) for _ in range(n)
        ]
    ours, bare = (statistics.median(each) for each in zip(*pairs, strict=True))
    what = "processor time of a further worker, warm, beside one of as many empty tests"
    rows.append(Row(what, "s", ours, bare, ours / bare, "≤ 1", n))
    return rows


def _further(command: Sequence[str], folder: Path) -> float:
    """Processor seconds of each of two workers more."""
    one, three = (_median([*command, f"-n{k}", "--dist=worksteal"], folder, 1)[1] for k in (1, 3))
    return (three - one) / 2


def _bare(folder: Path, said: str) -> list[str]:
    """pytest on as many tests that do nothing, in a project that has no more than them."""
    project = folder / "bare"
    project.mkdir(exist_ok=True)
    (project / "pytest.ini").write_text("[pytest]", encoding="utf-8")
    cells = f"@pytest.mark.parametrize('cell', range({int(said.split()[0])}))"
    text = f"import pytest\n\n\n{cells}\ndef test_nothing(cell):\n    pass\n"
    (project / "test_bare.py").write_text(text, encoding="utf-8")
    without = ["-p", "no:cacheprovider", "-p", "no:spqr_checks.pytest_plugin.plugin"]
    return [sys.executable, "-m", "pytest", str(project), f"--rootdir={project}", *without, "-q"]


def _median(command: Sequence[str], folder: Path, n: int) -> tuple[float, float, str]:
    """Wall and processor seconds, and pytest's last words without the time."""
    # without compiled modules pytest would rewrite every assertion anew in each process
    ours = {k: v for k, v in environment().items() if k != "PYTHONDONTWRITEBYTECODE"}
    walls, cpus = [], []
    for _ in range(n):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ours)
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if done.returncode not in (0, 1):
            sys.exit(
                f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
    last = done.stdout.strip().splitlines()[-1]
    return statistics.median(walls), statistics.median(cpus), last.strip("= ").split(" in ")[0]
