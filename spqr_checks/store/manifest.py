"""The manifest of a store entry: size and SHA-256 of each of its files, and the entry's own key.

An entry is sound when a manifest written anew from its files equals the stored one byte for byte.
So there is no place, in a file or in the manifest itself, where a changed byte goes unnoticed, and
an entry that was copied to the place of another is noticed too.

Hashing everything once per process is enough: afterwards the sizes, times and inode numbers of the
files are compared, which costs microseconds.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from spqr_checks.hashing import digest

MANIFEST, RECIPE = "manifest.json", "recipe.json"
_SYNCS, _FEW = 4, 2
_CHUNK = 1 << 18
_NAME = re.compile(r"[\w.+@= /-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Stamp: TypeAlias = tuple[int, int, int, int]
"""Size, modification time (ns), change time (ns) and inode number of a file."""

_ABOUT_THE_CONTENT = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.EBADMSG),
    getattr(errno, "EUCLEAN", errno.EIO),
}

# what this process has already hashed and found sound: entry → the stamps its files had then
_verified: dict[str, dict[str, Stamp]] = {}


class DamagedError(Exception):
    """An entry from elsewhere is not what its manifest and its key say."""


class IrregularFileError(Exception):
    """Something in an entry is neither a file nor a folder: a link, a pipe, a socket."""


def stamps(entry: Path) -> dict[str, Stamp]:
    """Stamps of all files below a folder by their relative name, in no particular order.

    Raises IrregularFileError and OSError.
    """
    return dict(_walk(str(entry), ""))


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, Stamp]]:
    with os.scandir(folder) as files:
        for file in files:
            name = prefix + file.name
            status = file.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                yield from _walk(file.path, name + "/")
            elif stat.S_ISREG(status.st_mode):
                times = status.st_mtime_ns, status.st_ctime_ns
                yield name, (status.st_size, *times, status.st_ino)
            else:
                raise IrregularFileError(f"{name} is neither a file nor a folder")


def _written_anew(entry: Path, kind: str, key: str, found: Mapping[str, Stamp]) -> bytes:
    folder = str(entry)
    files = {
        name: _fingerprint(f"{folder}{os.sep}{name}", found[name][0])
        for name in sorted(found)
        if name != MANIFEST
    }
    text = json.dumps({"kind": kind, "key": key, "files": files}, sort_keys=True)
    return text.encode() + b"\n"


def _fingerprint(path: str, expected: int) -> dict[str, int | str]:
    # plain system calls: a warm run reads tens of thousands of small images here
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        chunk = os.read(descriptor, min(expected, _CHUNK) + 1)
        sha256, size = hashlib.sha256(chunk), len(chunk)
        while chunk and size != expected:
            chunk = os.read(descriptor, _CHUNK)
            sha256.update(chunk)
            size += len(chunk)
    finally:
        os.close(descriptor)
    return {"size": size, "sha256": sha256.hexdigest()}


def seal(entry: Path, kind: str, key: str, recipe: str) -> dict[str, Stamp]:
    """Finish a new entry: add its recipe and manifest, bring all to the disk.

    Returns the final stamps. Raises ValueError if the entry has no files, holds a link or a file
    named like one of these two, or still changes while it is read.
    """
    try:
        names = [*stamps(entry)]
    except IrregularFileError as error:
        raise ValueError(f"an artefact consists of plain files, but {error}") from error
    if not names or MANIFEST in names or RECIPE in names:
        raise ValueError(f"an artefact needs files, and none may be called {RECIPE} or {MANIFEST}")
    (entry / RECIPE).write_text(recipe, encoding="utf-8")
    names.append(RECIPE)
    sync([entry / name for name in names])
    before = stamps(entry)
    (entry / MANIFEST).write_bytes(_written_anew(entry, kind, key, before))
    sync([entry / MANIFEST, *(Path(folder) for folder, _, _ in os.walk(entry))])
    after = stamps(entry)
    if {name: stamp for name, stamp in after.items() if name != MANIFEST} != before:
        raise ValueError("the files of the artefact were still being written when it was finished")
    return after


def accept(entry: Path, kind: str, key: str) -> dict[str, Stamp]:
    """Check a whole entry that came from elsewhere, manifest and all, and bring it to the disk.

    Returns its stamps. Raises DamagedError unless every file is what the manifest says and the
    recipe is that of the key.
    """
    forget(entry)
    wrong = damage(entry, kind, key) or _wrong_recipe(entry, key)
    if wrong is not None:
        raise DamagedError(wrong)
    sound = stamps(entry)
    sync([entry / name for name in sound] + [Path(folder) for folder, _, _ in os.walk(entry)])
    return sound


def _wrong_recipe(entry: Path, key: str) -> str | None:
    try:
        named = digest(json.loads((entry / RECIPE).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        named = ""
    return None if named == key else f"{RECIPE} is not the one of this key"


def listed(content: bytes, kind: str, key: str) -> dict[str, tuple[int, str]]:
    """Files that a manifest from elsewhere names: relative name → size and SHA-256.

    Raises DamagedError for a manifest of another entry, and for names that lead out of its folder.
    """
    try:
        said = json.loads(content)
        files = {
            str(name): (int(file["size"]), str(file["sha256"]))
            for name, file in said["files"].items()
        }
        known = said["kind"] == kind and said["key"] == key
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise DamagedError(f"{MANIFEST} cannot be understood") from None
    if not known:
        raise DamagedError(f"{MANIFEST} belongs to another entry")
    for name, (_, sha256) in files.items():
        refuse_name(name)
        if not _SHA256.fullmatch(sha256):
            raise DamagedError(f"{MANIFEST} gives {name} no SHA-256")
    return files


def refuse_name(name: str) -> None:
    """DamagedError for a name that is no plain path below an entry's folder."""
    if not _NAME.fullmatch(name) or {"", ".", ".."} & {*name.split("/")}:
        raise DamagedError(f"{name!r} cannot be a file of an entry")


def damage(entry: Path, kind: str, key: str) -> str | None:
    """What is wrong with an entry, in words, or None if it is sound.

    Raises FileNotFoundError if there is no entry at all, and any OSError that says nothing about
    the content (no permission, too many open files), lest a sound entry be taken for a damaged one.
    """
    if not os.path.lexists(entry):
        raise FileNotFoundError(entry)
    try:
        found = stamps(entry)
        if _verified.get(str(entry)) == found:
            return None
        forget(entry)
        stored = (entry / MANIFEST).read_bytes()
        actual = _written_anew(entry, kind, key, found)
    except (IrregularFileError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _ABOUT_THE_CONTENT:
            raise
        return str(error)
    if stored != actual:
        return _difference(stored, actual)
    remember(entry, found)
    return None


def _difference(stored: bytes, actual: bytes) -> str:
    try:
        listed = dict(json.loads(stored)["files"])
    except (ValueError, TypeError, KeyError):
        return f"{MANIFEST} cannot be understood"
    files = json.loads(actual)["files"]
    names = sorted(n for n in {*listed, *files} if listed.get(n) != files.get(n))
    if not names:
        return f"{MANIFEST} was changed or belongs to another entry"
    return f"missing, added or changed: {', '.join(names[:3])}{' …' if names[3:] else ''}"


def remember(entry: Path, sound: dict[str, Stamp]) -> None:
    """Spare this process the hashing of an entry while its files keep these stamps."""
    _verified[str(entry)] = sound


def forget(entry: Path | None = None) -> None:
    """Hash an entry (or all) again at the next look, as a new process would."""
    if entry is None:
        _verified.clear()
    else:
        _verified.pop(str(entry), None)


def sync(paths: Sequence[Path]) -> None:
    """Bring the content of files, and folders' lists of names, to the disk before returning.

    Many of them at once, because the disk's cache is then flushed for all together, which is up to
    ten times faster than one after the other.
    """
    if len(paths) <= _FEW:
        for path in paths:
            _sync(path)
    else:
        with ThreadPoolExecutor(_SYNCS) as pool:
            list(pool.map(_sync, paths))  # raises what a sync raised


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows has no such thing; NTFS keeps its folders in a journal
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
