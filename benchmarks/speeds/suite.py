"""A whole cold run: seconds, and what the verdict was.

What follows the part's own options is handed to ``spqr run``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import owners

from speeds import cold
from speeds.rows import Row

SMALL = [
    *("--spqr-concepts=hazard", "--spqr-languages=en", "--spqr-domains=photo"),
    *("--spqr-datasets=miniature:pastel", "--spqr-profiles=lite", "--spqr-seeds=0"),
    "--spqr-min-tuning-seeds=1",
]
"""One data set and one concept through every step: align, draw, fine-tune, judge, score."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", type=int, default=2, help="workers")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--tiny", action="store_true", help="a few images and steps: only whether it runs"
    )
    parser.add_argument("words", nargs="*", help="of spqr run, after --; default: one concept")


def measure(options: argparse.Namespace) -> list[Row]:
    words = [
        *(options.words or ([] if options.tiny else SMALL)),
        f"-n{options.n}",
        f"--spqr-device={options.device}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        if options.tiny:
            (Path(folder) / "pyproject.toml").write_text(owners.SETTINGS, encoding="utf-8")
        done = cold.run(Path(folder), words)
    gate = "passed" if done.card["gate"]["passed"] else "failed"
    what = f"cold run, {len(done.card['cells'])} cells, -n {options.n}, gate {gate}"
    score = Row("its SPQR", "", done.card["spqr"] or 0.0)
    return [Row(what, "s", done.seconds), Row("its processor time", "s", done.cpu), score]
