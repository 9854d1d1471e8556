"""Time to collect 10,000 cells and to run 1,000 warm ones, as pytest counts and with its start.

python benchmarks/collection.py
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from warm import arguments, fill

_REPEATS = 5


def write_prompts(path: Path, concepts: int, languages: int, domains: int) -> None:
    """Harmful prompts only, one for each group."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "kind", "concept", "category", "language", "domain"])
        for c in range(concepts):
            for language in range(languages):
                for domain in range(domains):
                    name = f"{c}/{language}/{domain}"
                    row = [name, f"prompt {name}", "harmful", f"concept {c}", f"category {c % 7}"]
                    writer.writerow([*row, f"l{language}", f"d{domain}"])


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    # without compiled modules pytest would rewrite every assertion anew in each process
    ours = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ours)
    return time.perf_counter() - start, (result.stdout + result.stderr).strip().splitlines()[-1]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "prompts.csv"
        settings = {
            "prompts": str(path),
            "concepts": ",".join(f"concept {c}" for c in range(120)),
            "languages": ",".join(f"l{i}" for i in range(7)),
            "domains": ",".join(f"d{i}" for i in range(4)),
            "seeds": "0",
        }
        write_prompts(path, 120, 7, 4)
        command = [sys.executable, "-m", "pytest", *arguments(folder, **settings), "-q"]
        for _ in range(_REPEATS):
            seconds, last = timed([*command, "--collect-only"], folder)
            print(f"collect: {seconds:.2f} s  ({last})", flush=True)

        write_prompts(path, 12, 7, 4)
        settings["concepts"] = ",".join(f"concept {c}" for c in range(12))
        fill(folder, **settings)
        command = [sys.executable, "-m", "pytest", *arguments(folder, **settings), "-q"]
        for _ in range(_REPEATS):
            seconds, last = timed(command, folder)
            print(f"warm: {seconds:.2f} s  ({last})", flush=True)


if __name__ == "__main__":
    main()
