"""Entries of one store brought into another on the same machine; see `remote` for others."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.store import manifest, timings
from spqr_checks.store.store import Store


@dataclass
class Transfer:
    """What became of the entries that were to be brought somewhere.

    Attributes:
        taken: how many were brought.
        there: how many were there already, with the same bytes.
        damaged: those that were left out, and why.
        differing: those of which other bytes were there already, which stay.
    """

    taken: int = 0
    there: int = 0
    damaged: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether all is now where it was to be brought."""
        return not self.damaged and not self.differing

    def note_there(self, name: str, same: bool) -> None:
        """An entry is there already."""
        if same:
            self.there += 1
        else:
            self.differing.append(name)


def merge(sources: Sequence[Path], into: Path) -> Transfer:
    """Joins stores: every sound entry of each, and its timing, that is not there yet.

    Nothing that is there is overwritten, and every entry is checked as it arrives. Killed at any
    moment and run again, it goes on.

    Raises:
        UserError: for a source that is no folder or the target itself, and as `Store.build`.
    """
    target, done = Store(into), Transfer()
    for source in sources:
        if not source.is_dir():
            raise UserError(f"{source}: no store is there; name folders of stores")
        if source.resolve() == into.resolve():
            raise UserError(f"{source} is the store to merge into; name the others only")
    for source in sources:
        for kind, key, entry in Store(source).entries():
            _bring(entry, kind, key, target, done)
        for name, path in timings.files(source).items():
            with suppress(OSError):  # an estimate is the poorer for it, and no run
                timings.take(target.root, name, path.read_bytes())
    return done


def _bring(entry: Path, kind: str, key: str, target: Store, done: Transfer) -> None:
    wrote = False

    def write(draft: Path) -> None:
        nonlocal wrote
        wrote = True
        for name in manifest.stamps(entry):
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(entry / name, draft / name)

    try:
        there = target.receive(kind, key, write)
        if wrote:
            done.taken += 1
        else:
            same = (there / manifest.MANIFEST).read_bytes()
            if (wrong := manifest.damage(entry, kind, key)) is not None:
                raise manifest.DamagedError(wrong)
            done.note_there(str(entry), (entry / manifest.MANIFEST).read_bytes() == same)
    except (manifest.DamagedError, manifest.IrregularFileError, FileNotFoundError) as error:
        done.damaged.append(f"{entry}: {error}")
