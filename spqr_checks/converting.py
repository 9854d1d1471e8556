"""`spqr convert`: weights of other formats, written as this package reads them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Adds the command to those of `spqr`."""
    convert = commands.add_parser(
        "convert",
        help="write pickled weights or a single-file checkpoint as safetensors",
        description="Reads weights only: a file that holds anything else is refused.",
    )
    convert.add_argument(
        "source",
        type=Path,
        metavar="SRC",
        help="a folder, or a .pt, .pth, .bin, .ckpt or .safetensors file",
    )
    convert.add_argument("--out", type=Path, required=True, metavar="DIR")
    convert.add_argument(
        "--config",
        default="",
        metavar="PIPELINE",
        help="for the checkpoint of a whole model: folder or Hub id of a pipeline of its kind",
    )
    convert.set_defaults(command=convert_weights)


def convert_weights(options: argparse.Namespace) -> int:
    """Runs the command. Raises UserError for what cannot be converted."""
    from spqr_checks.models.conversion import convert

    print(convert(options.source, options.out, options.config))
    return 0
