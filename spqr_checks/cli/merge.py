"""`spqr merge`: stores of several machines joined into one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spqr_checks.store.transfer import Transfer


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.description = (
        "Brings every sound entry of the stores into one; nothing there is overwritten. "
        "Exit code 1 if something was damaged or had been made twice with different bytes."
    )
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE")
    parser.add_argument("--into", type=Path, required=True, metavar="STORE")
    parser.set_defaults(command=join)


def join(options: argparse.Namespace) -> int:
    """Runs the command; 1 if not all was brought.

    Raises:
        UserError: for what is no store, and a store that cannot be written.
    """
    from spqr_checks.store.transfer import merge
    from spqr_checks.user_files import path_of

    return said(merge([path_of(store) for store in options.stores], path_of(options.into)))


def said(done: Transfer) -> int:
    """Says what became of entries; the exit code."""
    from spqr_checks.cli.arguments import say

    for one in done.damaged:
        say(f"damaged, left out: {one}")
    for one in done.differing:
        say(f"made twice, with different bytes; the earlier stays: {one}")
    if done.differing:
        say("machines that make different bytes from one recipe do not compute alike; see scale.md")
    say(f"{done.taken} entries brought, {done.there} were there already")
    return 0 if done.clean else 1
