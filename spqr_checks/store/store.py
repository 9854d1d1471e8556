"""The store: finished artefacts on a plain folder, each under the digest of what determined it.

::

    root/KIND/ab/abcd…/     an entry: the artefact's files, recipe.json (for people), manifest.json
    root/leases/            who is building what (leases.py)
    root/tmp/               drafts: entries being made
    root/uses/              which entries runs have used (uses.py)
    root/timings/           how long entries took to make, for estimates (timings.py); no entries
    root/quarantine/        entries whose content no longer matches their manifest (manifest.py)

Why an entry that can be seen is complete, whatever is killed and whenever:

1. An entry is made in a draft folder that nobody reads. Its files are brought to the disk (fsync),
   then the manifest, then the folders, and only then is the draft renamed, which happens wholly or
   not at all. The folder that received the name is synced before ``build`` returns.
2. Only the holder of a key's lease makes drafts of that key or changes what its final name stands
   for, and it looks again after it got the lease. So no work is done twice, and nobody quarantines
   what somebody else has just rebuilt.
3. The kernel ends the lease of a process that ends. A draft whose lease is free therefore belongs
   to nobody alive; the next ``build`` of anything removes it.
4. What the disk or a person changes afterwards is found by the manifest on the next read in a new
   process: the entry goes to the quarantine and is built again.

Makers may build other entries of the same store: an artefact never needs itself.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, digest
from spqr_checks.store import leases, manifest

Recipe: TypeAlias = Mapping[str, Json]

_LEASES, _DRAFTS, _QUARANTINE, USES = "leases", "tmp", "quarantine", "uses"
_KIND = re.compile(r"(?!(?:leases|tmp|timings|quarantine|uses)$)[a-z][a-z0-9_-]*")
_KEY = re.compile(r"[0-9a-f]{32}")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_FOLDER = "the store {} must be a folder ({}): choose another store folder"
_FORBIDDEN = (
    "the store {} cannot be read and written ({}): "
    "change its permissions or choose another store folder"
)
_WRONG = {
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), _NO_FOLDER),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _FORBIDDEN),
    errno.ENOLCK: "the store {} has no file locks ({}): choose a folder on a local disk",
}
"""What can be wrong with a store's folder, by the number of the system's error."""


class StoreWarning(UserWarning):
    """An entry was damaged; the run goes on and builds it again."""


def entry_key(kind: str, recipe: Recipe) -> str:
    """The key of an artefact: 32 hexadecimal digits; the order of the recipe's keys is irrelevant.

    Raises ValueError for NaN, for infinities and for a kind that cannot name a folder.
    """
    if not _KIND.fullmatch(kind):
        raise ValueError(f"{kind!r} cannot be a kind of artefact")
    return digest({"kind": kind, "recipe": recipe})


class Store:
    """A content-addressed store on one folder, for many processes at once.

    The folder appears with the first build. Reading never writes, except that a damaged entry is
    moved away. ``used`` is told of each entry before it is looked at (see `uses`).
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self.used: Callable[[str, str], None] | None = None

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def path(self, kind: str, recipe: Recipe) -> Path | None:
        """The folder of a finished, verified artefact, or None if it has yet to be built."""
        key = entry_key(kind, recipe)
        entry = self.entry(kind, key)
        if self.used is not None:
            self.used(kind, key)
        with _user_errors(self.root):
            try:
                damage = manifest.damage(entry, kind, key)
            except FileNotFoundError:
                return None
            if damage is None:
                return entry
        try:
            with leases.lease(self._folder(_LEASES), key, wait=False) as mine:
                return self._look_again(kind, key) if mine else None
        except OSError:
            _warn(f"{entry}: damaged ({damage}), and the store is not writable; not used")
            return None

    def holds(self, kind: str, key: str) -> bool:
        """Whether there is such an entry, sound or not: nothing is read, verified or moved."""
        return (self.entry(kind, key) / manifest.MANIFEST).is_file()

    def build(
        self,
        kind: str,
        recipe: Recipe,
        make: Callable[[Path], None],
        *,
        wait: bool = True,
        label: str = "",
    ) -> Path | None:
        """The folder of an artefact, made by ``make`` unless it is there already.

        ``make`` writes the files into the empty folder it is given; what it raises is passed on and
        leaves nothing behind. ``label`` says to people what is being built. With ``wait=False`` the
        answer is None while another process holds the artefact's lease: ask again later.

        Raises UserError if the store is not a folder, not writable or full, and ValueError if
        ``make`` leaves no files, links, or files named like the store's own.
        """
        key = entry_key(kind, recipe)
        note = json.dumps({"kind": kind, "recipe": recipe}, indent=1, sort_keys=True) + "\n"
        if (found := self.path(kind, recipe)) is not None:
            return found

        def fill(draft: Path) -> dict[str, manifest.Stamp]:
            with _user_errors(self.root, only_full=True):
                make(draft)
            with _user_errors(self.root):
                return manifest.seal(draft, kind, key, note)

        return self._place(kind, key, fill, wait=wait, label=label)

    def receive(self, kind: str, key: str, write: Callable[[Path], None]) -> Path:
        """The folder of an entry, taken from elsewhere by ``write`` unless it is there already.

        ``write`` puts all files of a finished entry into the empty folder it is given, its recipe
        and manifest among them; what it raises is passed on and leaves nothing behind.

        Raises DamagedError for what is not as its manifest says or belongs to another key,
        UserError as `build`, and ValueError for a kind or key that cannot be.
        """
        if not (_KIND.fullmatch(kind) and _KEY.fullmatch(key)):
            raise ValueError(f"{kind}/{key} cannot be an entry")

        def fill(draft: Path) -> dict[str, manifest.Stamp]:
            with _user_errors(self.root, only_full=True):
                write(draft)
            with _user_errors(self.root):
                return manifest.accept(draft, kind, key)

        taken = self._place(kind, key, fill, wait=True, label="taken from elsewhere")
        assert taken is not None  # who waits is served
        return taken

    def _place(
        self,
        kind: str,
        key: str,
        fill: Callable[[Path], dict[str, manifest.Stamp]],
        *,
        wait: bool,
        label: str,
    ) -> Path | None:
        """Under the lease: the sound entry, or else the draft that ``fill`` finishes, published."""
        with ExitStack() as stack:
            with _user_errors(self.root):
                folder = self._folder(_LEASES)
                if not stack.enter_context(leases.lease(folder, key, wait=wait)):
                    return None
                if (found := self._look_again(kind, key)) is not None:
                    return found
                self._sweep(key)
                stack.enter_context(leases.announced(folder, key, kind, label))
                draft = self._new_draft(key)
                draft.mkdir()
                stack.callback(shutil.rmtree, draft, ignore_errors=True)
            sound = fill(draft)
            with _user_errors(self.root):
                return self._publish(draft, kind, key, sound)

    def _publish(self, draft: Path, kind: str, key: str, sound: dict[str, manifest.Stamp]) -> Path:
        entry = self.entry(kind, key)
        entry.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(draft, entry)
        except OSError as error:
            # somebody who knows no leases, say a copy from another machine, was here first
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
            if (found := self._look_again(kind, key)) is not None:
                return found
            os.rename(draft, entry)
        manifest.sync([entry.parent, entry.parent.parent, self.root])
        manifest.remember(entry, sound)
        return entry

    def _look_again(self, kind: str, key: str) -> Path | None:
        """Under the lease: the entry if it is sound; a damaged one is moved out of the way."""
        entry = self.entry(kind, key)
        try:
            damage = manifest.damage(entry, kind, key)
        except FileNotFoundError:
            return None
        if damage is None:
            return entry
        away = self._folder(_QUARANTINE) / f"{kind}-{key}-{uuid.uuid4().hex[:8]}"
        os.rename(entry, away)
        _warn(f"{self.place(kind, key)}: damaged ({damage}), moved to {away}; it will be rebuilt")
        return None

    def _sweep(self, mine: str) -> None:
        """Under the lease of ``mine``: remove the drafts of processes that are no more."""
        for draft in self._folder(_DRAFTS).iterdir():
            key = draft.name.partition(".")[0]
            if key == mine:
                shutil.rmtree(draft, ignore_errors=True)
            elif _KEY.fullmatch(key):
                with leases.lease(self._folder(_LEASES), key, wait=False) as abandoned:
                    if abandoned:
                        shutil.rmtree(draft, ignore_errors=True)

    def check(self) -> None:
        """Raise UserError if nothing could be stored here; writes nothing."""
        folder = self.root
        while not os.path.lexists(folder):
            folder = folder.parent
        with _user_errors(self.root):
            for wrong, code in (
                (not folder.is_dir(), errno.ENOTDIR),
                (not os.access(folder, os.W_OK | os.X_OK), errno.EACCES),
                (shutil.disk_usage(folder).free == 0, errno.ENOSPC),
            ):
                if wrong:
                    raise OSError(code, os.strerror(code), str(folder))

    def leases_held(self) -> list[leases.Held]:
        """What is being built right now by any process, longest first."""
        return leases.held(self.root / _LEASES)

    def usage(self) -> dict[str, tuple[int, int]]:
        """Number of entries and bytes of each kind, and of the quarantine if there is any."""
        sizes: dict[str, list[int]] = {}
        for kind, _, entry in self.entries():
            sizes.setdefault(kind, []).append(size_of(entry))
        if away := [size_of(entry) for entry in _children(self.root / _QUARANTINE)]:
            sizes[_QUARANTINE] = away
        return {kind: (len(each), sum(each)) for kind, each in sizes.items()}

    def verify(self) -> list[str]:
        """Keys of the entries that are damaged, after hashing every file; moves nothing."""
        damaged = []
        for kind, key, entry in self.entries():
            manifest.forget(entry)
            with _user_errors(self.root):
                try:
                    if manifest.damage(entry, kind, key) is not None:
                        damaged.append(key)
                except FileNotFoundError:
                    continue  # removed since it was listed
        return damaged

    def remove(self, kind: str, key: str) -> bool:
        """Remove one entry; False if there is none or it is in the works at the moment."""
        if not (_KIND.fullmatch(kind) and _KEY.fullmatch(key)):
            raise ValueError(f"{kind}/{key} cannot be an entry")
        entry = self.entry(kind, key)
        if not os.path.lexists(entry):
            return False
        with (
            _user_errors(self.root),
            leases.lease(self._folder(_LEASES), key, wait=False) as mine,
        ):
            if not mine or not os.path.lexists(entry):
                return False
            manifest.forget(entry)
            # gone at once for readers; if the removal is killed, the rest is an abandoned draft
            draft = self._new_draft(key)
            os.rename(entry, draft)
            shutil.rmtree(draft)
            return True

    def prune(self, kinds: Iterable[str], older_than: float = 0) -> int:
        """Remove all entries of these kinds ("quarantine" is one); returns how many went.

        What is being made stays.

        Args:
            older_than: seconds; what was made since is kept.
        """
        wanted, latest = set(kinds), time.time() - older_than
        entries = [e for e in self.entries() if e[0] in wanted and made(e[2]) <= latest]
        removed = sum(self.remove(kind, key) for kind, key, _ in entries)
        return removed + (self.empty_quarantine(latest) if _QUARANTINE in wanted else 0)

    def empty_quarantine(self, latest: float) -> int:
        """Remove what was moved there until then (``time.time()``); returns how many went."""
        away = [path for path in _children(self.root / _QUARANTINE) if made(path) <= latest]
        for entry in away:
            with _user_errors(self.root):
                shutil.rmtree(entry)
        return len(away)

    def entry(self, kind: str, key: str) -> Path:
        """The folder of an entry, whether it is there or not."""
        return self.root / self.place(kind, key)

    def place(self, kind: str, key: str) -> str:
        """The folder of an entry as seen from the store's root."""
        return f"{kind}/{key[:2]}/{key}"

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _new_draft(self, key: str) -> Path:
        return self._folder(_DRAFTS) / f"{key}.{uuid.uuid4().hex[:8]}"

    def entries(self) -> Iterator[tuple[str, str, Path]]:
        """Kind, key and folder of every entry, sound or not, in order."""
        for folder in _children(self.root):
            if _KIND.fullmatch(folder.name):
                for prefix in _children(folder):
                    for entry in _children(prefix):
                        if _KEY.fullmatch(entry.name):
                            yield folder.name, entry.name, entry


_said: set[str] = set()


def _warn(text: str) -> None:
    if text not in _said:
        _said.add(text)
        warnings.warn(text, StoreWarning, stacklevel=4)


@contextmanager
def _user_errors(root: Path, *, only_full: bool = False) -> Iterator[None]:
    """Turn what the operating system says about a store's folder into a UserError.

    With ``only_full`` a full disk only: for code that also reads files of its own. Other errors
    pass unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        # libraries that write files themselves report a full disk in words only
        if code in _FULL or "No space left on device" in str(error):
            what = "no space left for the store {}: free some, or choose another store folder"
        elif only_full or code not in _WRONG:
            raise
        else:
            what = _WRONG[code]
        raise UserError(what.format(root, error)) from error


def _children(folder: Path) -> list[Path]:
    """What is directly in a folder, sorted; nothing if there is no such folder."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def made(entry: Path) -> float:
    """When an entry came into its store, or a file was last written (``time.time()``)."""
    try:
        return entry.lstat().st_mtime
    except FileNotFoundError:
        return 0.0  # removed since it was listed


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; links count as themselves, vanished files not at all."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
