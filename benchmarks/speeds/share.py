"""Share of a cold run's time that is spent in networks' forward and backward passes.

One process; the rest of its time is imports, samplers, files, statistics and reports. What follows
the part's own options is handed to ``spqr run``; without any it is the demo.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from speeds import cold
from speeds.rows import Row


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu")
    parser.add_argument("words", nargs="*", help="of spqr run, after --; default: the demo")


def measure(options: argparse.Namespace) -> list[Row]:
    words = [*options.words, "-n0", f"--spqr-device={options.device}"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clock = folder / "seconds"
        done = cold.run(
            folder,
            [*words, "-p", "speeds.network_clock"],
            SPQR_NETWORK_CLOCK=str(clock),
            PYTHONPATH=str(Path(__file__).parents[1]),
        )
        inside = float(clock.read_text("utf-8"))
    what = f"forward and backward passes in a cold run of {len(done.card['cells'])} cells, -n 0"
    return [Row(what, "s", inside, done.seconds, inside / done.seconds, "≥ 0.9")]
