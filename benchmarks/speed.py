"""How fast it is, beside what people do otherwise: a part for each measure, a table and JSON.

    python benchmarks/speed.py sizes --size miniature --dtype float32
    python benchmarks/speed.py step
    python benchmarks/speed.py verdict
    python benchmarks/speed.py share
    python benchmarks/speed.py warm
    python benchmarks/speed.py growth --svg growth.svg
    python benchmarks/speed.py suite --device cuda -n 8

What is compared takes turns in one run on one machine. What was not run is not reported: a part
that fails ends the program with its error. ``--json FILE`` adds the part's rows to the file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from speeds import growth, share, sizes, step, suite, verdict, warm
from speeds.rows import table

PARTS = {
    "sizes": sizes,
    "step": step,
    "verdict": verdict,
    "share": share,
    "warm": warm,
    "growth": growth,
    "suite": suite,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    for name, part in PARTS.items():
        added = parts.add_parser(name, help=part.__doc__.splitlines()[0])
        added.add_argument("--json", type=Path, help="add what was found to this file")
        part.arguments(added)
    options = parser.parse_args()
    rows = PARTS[options.part].measure(options)
    machine = _machine(getattr(options, "device", "cpu"))
    print(f"{machine}\n\n{table(rows)}")
    if options.json:
        there = json.loads(options.json.read_text("utf-8")) if options.json.exists() else {}
        there |= {"machine": machine, options.part: [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(there, indent=2) + "\n", encoding="utf-8")


def _machine(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, torch {torch.__version__}"


if __name__ == "__main__":
    main()
