"""`spqr convert`: weights of other formats, written as this package reads them."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = "Reads weights only: a file that holds anything else is refused."
    parser.add_argument(
        "source",
        type=Path,
        metavar="SRC",
        help="a folder, or a .pt, .pth, .bin, .ckpt or .safetensors file",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--config",
        default="",
        metavar="PIPELINE",
        help="for the checkpoint of a whole model: folder or Hub id of a pipeline of its kind",
    )
    parser.set_defaults(command=convert_weights)


def convert_weights(options: argparse.Namespace) -> int:
    """Runs the command. Raises UserError for what cannot be converted."""
    from spqr_checks.models.conversion import convert

    print(convert(options.source, options.out, options.config))
    return 0
