"""`spqr push`: reports and model card into a folder, or a repository of the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Says which files of a run's reports would be put into a model's repository on the Hub, or "
        "a folder, and what of its model card would change. With --yes they are put there, on the "
        "Hub in one commit."
    )
    said = "of a run's reports (spqr-report)"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=said)
    said = "OWNER/NAME[@BRANCH] of the Hub, or a folder"
    parser.add_argument("target", metavar="REPO_OR_DIR", help=said)
    said = "folder of the reports there; the card README.md lies above it (default: spqr)"
    parser.add_argument("--path", default="spqr", metavar="NAME", help=said)
    said = "put them there; without it nothing is written"
    parser.add_argument("--yes", action="store_true", help=said)
    parser.set_defaults(command=push)


def push(options: argparse.Namespace) -> int:
    """Runs the command. Raises UserError for what cannot or should not be put there."""
    import re

    from spqr_checks.cli.arguments import say
    from spqr_checks.errors import UserError
    from spqr_checks.reports.publishing import planned
    from spqr_checks.reports.text import one_line
    from spqr_checks.user_files import path_of

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", options.path, re.ASCII):
        raise UserError(f"--path {options.path!r}: name a folder by letters, digits, '.', '_', '-'")
    found = planned(path_of(options.folder), options.target, options.path)
    for name, (content, state) in found.files.items():
        say(f"{state:8s} {name} ({len(content) / 1024:.1f} KiB)")
    say(f"to {one_line(found.target.said)}; reports name your prompts")
    if options.yes:
        say(f"written: {one_line(found.carry_out())}")
    elif any(state != "as it is" for _, state in found.files.values()):
        say("nothing was written; --yes writes it")
    return 0
