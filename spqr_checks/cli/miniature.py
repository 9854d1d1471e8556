"""`spqr miniature`: the embedded world, trained from nothing, and its prompt files."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's actions."""
    actions = parser.add_subparsers(required=True, metavar="action")
    train = actions.add_parser("train", help="train its networks from nothing")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--scale", type=float, default=1.0, help="factor on all training steps")
    train.set_defaults(command=_train)
    prompts = actions.add_parser("prompts", help="write its prompt files")
    prompts.add_argument("--out", type=Path, required=True)
    prompts.set_defaults(command=_prompts)


def _train(options: argparse.Namespace) -> int:
    from spqr_checks.miniature.train import train

    train(options.out, options.seed, options.scale)
    return 0


def _prompts(options: argparse.Namespace) -> int:
    from spqr_checks.miniature.prompt_sets import write

    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out)
    return 0
