"""`spqr completion SHELL`: by argcomplete, as commands are argparse's.

A library that brings its own parser (typer, click) would have every command written anew.
"""

from __future__ import annotations

import argparse

from spqr_checks.packages import importing

_SHELLS = ("bash", "zsh", "fish")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        'Prints a script. For bash and zsh, eval "$(spqr completion bash)" belongs into the '
        "shell's start file; for fish, spqr completion fish | source."
    )
    parser.add_argument("shell", choices=_SHELLS)
    parser.set_defaults(command=print_script)


def print_script(options: argparse.Namespace) -> int:
    """Runs the command. Raises UserError without argcomplete."""
    with importing("completion of words", "argcomplete", extra="completion"):
        from argcomplete.shell_integration import shellcode

    print(shellcode(["spqr"], shell=options.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers a shell what may follow, and ends the process.

    Commands that read all settings by a parser of their own get these here too.
    """
    with importing("completion of words", "argcomplete", extra="completion"):
        import argcomplete

    from spqr_checks.pytest_plugin.options import OPTIONS

    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for command in commands.choices.values():
        if command.get_default("reads_rest"):
            for option in OPTIONS:
                command.add_argument(option.flag, metavar=option.metavar, help=option.help)
    argcomplete.autocomplete(parser)
