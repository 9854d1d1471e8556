"""`spqr store`: what it holds, whether it is sound, what of it may go, and copies elsewhere."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spqr_checks.store.store import Store

_DAY = 86_400


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True)
    for name, does in (
        ("usage", "entries and bytes of each kind"),
        ("verify", "hash every file again and name what is damaged"),
        ("prune", "remove entries of some kinds; what a run needs of them it makes anew"),
        ("gc", "say what no recent run has used, and with --yes remove it"),
    ):
        action = actions.add_parser(name, help=does, description=does)
        action.add_argument("--store", metavar="DIR", help="that of the settings if not given")
        if name == "prune":
            action.add_argument("kinds", nargs="+", metavar="KIND", help="as `usage` names them")
            action.add_argument(
                "--older-than", type=float, default=0, metavar="DAYS", help="keep what is newer"
            )
        if name == "gc":
            said = "entries used or made in the last days (30d), or by the last runs (5)"
            action.add_argument("--keep", required=True, metavar="30d|N", help=said)
            said = "remove them; without it nothing is removed"
            action.add_argument("--yes", action="store_true", help=said)
    for name, does, order in (
        ("push", "bring entries to an address: s3://BUCKET/FOLDER, file:///FOLDER, …", (0, 1)),
        ("pull", "bring entries from an address", (1, 0)),
    ):
        action = actions.add_parser(name, help=does, description=f"{does}; only what is missing")
        both = (("store", "STORE"), ("address", "ADDRESS"))
        for dest, metavar in (both[place] for place in order):
            action.add_argument(dest, metavar=metavar)
        if name == "push":
            action.add_argument(
                "--verify", action="store_true", help="read what is there; resend what is damaged"
            )
    parser.set_defaults(command=look_after)


def look_after(options: argparse.Namespace) -> int:
    """Runs the command; 1 if something is damaged that was verified, pushed or pulled.

    Raises:
        UserError: for settings that cannot be read, a store that cannot be read or written, and
            kinds that it does not hold.
    """
    from spqr_checks.cli.arguments import say, settings_of
    from spqr_checks.cli.merge import said
    from spqr_checks.errors import UserError
    from spqr_checks.store import remote
    from spqr_checks.store.store import Store
    from spqr_checks.user_files import path_of

    store = Store(path_of(settings_of(options, {"store": "store"}).store))
    if options.action == "pull":
        return said(remote.pull(options.address, store))
    if not store.root.is_dir():
        raise UserError(f"{store.root}: no store is there; give its folder with --store")
    if options.action == "push":
        return said(remote.push(store, options.address, options.verify))
    if options.action == "verify":
        damaged = store.verify()
        for key in damaged:
            say(f"damaged: {key}")
        say(f"{len(damaged)} damaged entries; they are rebuilt when next needed")
        return 1 if damaged else 0
    if options.action == "gc":
        return _collect(store, options.keep, options.yes)
    usage = store.usage()
    if options.action == "prune":
        if unknown := sorted(set(options.kinds) - usage.keys()):
            raise UserError(
                f"{store.root} holds no {', '.join(unknown)}; "
                f"there are: {', '.join(sorted(usage)) or 'no entries at all'}"
            )
        if not options.older_than >= 0:
            raise UserError(f"--older-than must be a number of days, not {options.older_than}")
        say(f"{store.prune(options.kinds, options.older_than * _DAY)} entries removed")
        return 0
    _show(usage)
    return 0


def _show(usage: Mapping[str, tuple[int, int]]) -> None:
    from spqr_checks.cli.arguments import say

    for kind, (entries, size) in sorted(usage.items()):
        say(f"{kind:12s} {entries:8d} entries {size / 2**20:10.1f} MiB")


def _collect(store: Store, kept: str, sure: bool) -> int:
    from spqr_checks.cli.arguments import say
    from spqr_checks.store.uses import Keep, find_garbage

    keep = Keep.parse(kept)
    garbage = find_garbage(store, keep)
    _show(garbage.by_kind)
    size = sum(size for _, _, size in garbage.entries) / 2**20
    say(f"{len(garbage.entries)} entries, {size:.1f} MiB, were not used {keep.said}")
    if sure:
        say(f"{garbage.remove(store)} entries removed")
    elif garbage.entries:
        say("nothing was removed; --yes removes them")
    return 0
