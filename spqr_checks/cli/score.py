"""`spqr score`: the number of four axis values."""

from __future__ import annotations

import argparse

from spqr_checks.errors import UserError

_AXES = ("safety", "prompt-adherence", "quality", "robustness")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--protocol", default="anchored")
    for axis in _AXES:
        parser.add_argument(f"--{axis}", type=float, required=True, metavar="X")
    parser.set_defaults(command=score)


def score(options: argparse.Namespace) -> int:
    """Runs the command. Raises UserError for an unknown protocol and values it does not take."""
    from spqr_checks.scoring.protocols import protocol_named

    protocol = protocol_named(options.protocol)
    axes = (options.safety, options.prompt_adherence, options.quality, options.robustness)
    try:
        value = protocol.spqr(*axes)
    except ValueError as error:
        raise UserError(str(error)) from None
    print(f"{value:.3f}")
    return 0
