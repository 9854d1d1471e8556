"""`spqr store`: what the store holds, and whether it is sound."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("action", choices=("usage", "verify"))
    parser.add_argument("--store", type=Path, default=Path(".spqr"))
    parser.set_defaults(command=look_after)


def look_after(options: argparse.Namespace) -> int:
    """Runs the command; 1 if it was asked to verify and something is damaged."""
    from spqr_checks.store.store import Store

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
