"""The `spqr` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spqr_checks import aligning, checking, converting, doctor, estimating, judging, leaderboard
from spqr_checks.errors import UserError
from spqr_checks.rewriting import command as pairs
from spqr_checks.translation import command as translation

USAGE_ERROR = 4
Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a user's mistake is printed in a line or two and gives exit code 4."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not options.reads_rest:
        parser.error(f"unknown argument {rest[0]!r}")
    options.rest = rest
    command: Command = options.command
    try:
        return command(options)
    except UserError as error:
        print(f"spqr: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:
        # the reader has gone (`spqr … | head`); say nothing more, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spqr",
        description="Safety, prompt adherence, quality and robustness of a text-to-image model.",
        exit_on_error=True,
    )
    parser.set_defaults(reads_rest=False)
    commands = parser.add_subparsers(required=True, metavar="command")

    run = commands.add_parser(
        "run",
        help="run the suites (wraps pytest; takes all its options)",
        description="Runs the three suites; every argument goes to pytest, as in "
        "`spqr run -n 4 --spqr-candidate DIR`.",
        add_help=False,
    )
    run.set_defaults(command=_run, reads_rest=True)
    estimating.add_parser(commands)
    leaderboard.add_parser(commands)
    judging.add_parser(commands)

    score = commands.add_parser("score", help="combine four axis values into SPQR")
    score.add_argument("--protocol", default="anchored")
    for axis in ("safety", "prompt-adherence", "quality", "robustness"):
        score.add_argument(f"--{axis}", type=float, required=True, metavar="X")
    score.set_defaults(command=_score)

    report = commands.add_parser("report", help="write the reports of a scorecard again")
    report.add_argument("scorecard", type=Path)
    report.add_argument("--out", type=Path, required=True)
    report.set_defaults(command=_report)

    store = commands.add_parser("store", help="look after the store of artefacts")
    store.add_argument("action", choices=("usage", "verify"))
    store.add_argument("--store", type=Path, default=Path(".spqr"))
    store.set_defaults(command=_store)

    aligning.add_parser(commands)
    converting.add_parser(commands)
    doctor.add_parser(commands)
    pairs.add_parser(commands, {"miniature": _miniature_table})
    checking.add_parser(commands)
    translation.add_parser(commands)

    miniature = commands.add_parser("miniature", help="the embedded world")
    actions = miniature.add_subparsers(required=True, metavar="action")
    train = actions.add_parser("train", help="train its networks from nothing")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--scale", type=float, default=1.0, help="factor on all training steps")
    train.set_defaults(command=_miniature_train)
    prompts = actions.add_parser("prompts", help="write its prompt files")
    prompts.add_argument("--out", type=Path, required=True)
    prompts.set_defaults(command=_miniature_prompts)
    return parser


def _run(options: argparse.Namespace) -> int:
    import pytest

    from spqr_checks.suite import suite_arguments

    # libraries' deprecations say nothing about the model and would stand above the score
    quiet = ["-q", "--disable-warnings"]
    return int(pytest.main([*suite_arguments(), *quiet, f"--rootdir={Path.cwd()}", *options.rest]))


def _score(options: argparse.Namespace) -> int:
    from spqr_checks.scoring.protocols import protocol_named

    protocol = protocol_named(options.protocol)
    axes = (options.safety, options.prompt_adherence, options.quality, options.robustness)
    try:
        value = protocol.spqr(*axes)
    except ValueError as error:
        raise UserError(str(error)) from None
    print(f"{value:.3f}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from spqr_checks.reports import write_all
    from spqr_checks.scoring.serialize import from_json

    try:
        text = options.scorecard.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{options.scorecard}: {error.strerror}") from None
    write_all(from_json(text), options.out)
    print(options.out)
    return 0


def _store(options: argparse.Namespace) -> int:
    from spqr_checks.store import Store

    store = Store(options.store)
    if options.action == "usage":
        for kind, (entries, size) in sorted(store.usage().items()):
            print(f"{kind:12s} {entries:8d} entries {size / 2**20:10.1f} MiB")
        return 0
    damaged = store.verify()
    for key in damaged:
        print(f"damaged: {key}")
    print(f"{len(damaged)} damaged entries; they are rebuilt when next needed")
    return 1 if damaged else 0


def _miniature_table() -> Mapping[str, Any]:
    from spqr_checks.models.miniature.slot_table import slot_table

    return slot_table()


def _miniature_train(options: argparse.Namespace) -> int:
    from spqr_checks.models.miniature.train import train

    train(options.out, options.seed, options.scale)
    return 0


def _miniature_prompts(options: argparse.Namespace) -> int:
    from spqr_checks.models.miniature.prompt_sets import write

    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
