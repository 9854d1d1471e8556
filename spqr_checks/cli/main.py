"""The `spqr` command: a table of commands."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from spqr_checks.cli.parser import Parser, UsageError
from spqr_checks.errors import UserError

USAGE_ERROR = 4
INTERRUPTED = 2
"""Exit codes, as pytest's."""
Command = Callable[[argparse.Namespace], int]

COMMANDS = {
    "run": "run the suites (wraps pytest; takes all its options)",
    "init": "set up a project of your own: settings, sample prompts, workflow",
    "check": "say all that is wrong with a run, before it",
    "estimate": "say what a run would make and how long it takes",
    "leaderboard": "run the suites for several candidates and rank them",
    "judge": "measure how often judges err",
    "guard": "train input filters, and measure how often they err",
    "score": "combine four axis values into SPQR",
    "report": "write the reports of a scorecard again",
    "push": "put reports and model card into a repository of the Hub, or a folder",
    "view": "show pages and Allure's results in a browser",
    "history": "scorecards of releases in order, and since when a cell is red",
    "store": "look after the store of artefacts",
    "merge": "join the stores of several machines",
    "align": "apply an alignment method to a base",
    "convert": "write pickled weights or a single-file checkpoint as safetensors",
    "doctor": "say what works here, what to install for the rest, and what a run would refuse",
    "pairs": "paired unsafe and safe prompts for alignment",
    "prompts": "look into prompt files",
    "translate": "translate a prompt file with a model",
    "completion": "print what makes a shell complete spqr's words",
    "miniature": "the embedded world",
}
"""Name and help of each command."""
_SHORT = {"run", "score", "report", "convert", "miniature"}
"""Commands that are functions of `commands`; each other one is ``arguments`` of its module."""
_READ_THEIR_OWN = {"run", "check", "estimate", "leaderboard"}
"""Commands that get their arguments as they are; they take pytest's options or every setting."""

_NOISY = ("torchao", "torch.utils._pytree", "diffusers.quantizers")
"""Loggers that warn, on import, of kernels and formats for other machines."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a user's mistake is printed in a line or two and gives exit code 4."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may follow
        from spqr_checks.cli.completion import complete

        complete(command_parser(os.environ.get("COMP_LINE", "").split()))
    try:
        options, rest = command_parser(given).parse_known_args(given)
        if rest and not options.reads_rest:
            options.parser.error(f"unknown argument {rest[0]!r}")
        options.rest = rest
        command: Command = options.command
        return command(options)
    except UsageError as error:
        return _refused(str(error))
    except UserError as error:
        return _refused(f"spqr: {error}")
    except (KeyboardInterrupt, EOFError):  # Ctrl-C, or Ctrl-D where something is asked
        print("\nspqr: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader has gone (`spqr … | head`); say nothing more, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.filename is None:  # nothing that a user has named
            raise
        return _refused(f"spqr: {error.filename}: {error.strerror}; correct the path")


def _refused(said: str) -> int:
    from spqr_checks.cli.arguments import say

    say(said, sys.stderr)
    return USAGE_ERROR


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        from importlib.metadata import version

        print(f"spqr-checks {version('spqr-checks')}")
        parser.exit()


def command_parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of ``spqr``; only commands that are named in ``given`` are imported.

    A command adds its arguments to the parser that it is given. The parsed options hold
    ``command``, a function of these options that returns the exit code.
    """
    parser = Parser(
        prog="spqr",
        description="Safety, prompt adherence, quality and robustness of a text-to-image model.",
    )
    parser.set_defaults(reads_rest=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, text in COMMANDS.items():
        whole = name not in _READ_THEIR_OWN
        command = commands.add_parser(name, help=text, add_help=whole)
        command.set_defaults(reads_rest=not whole)
        if name in given:
            module, function = ("commands", name) if name in _SHORT else (name, "arguments")
            getattr(import_module(f"{__package__}.{module}"), function)(command)
    return parser
