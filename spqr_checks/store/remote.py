"""A store's entries at an address that fsspec understands: a bucket, a server, another folder.

::

    ADDRESS/files/ab/abcd…                 a file, under the SHA-256 of its content
    ADDRESS/entries/KIND/ab/abcd….json     the manifest of an entry, written after its files
    ADDRESS/timings/KIND/ab/abcd….json     how long it took

Such places know neither locks nor renamed folders. Files are therefore never changed once they are
there, and a manifest, written last and at once, names them by content: two who push the same entry
write the same files, and whose manifest is last is indifferent. A push that is killed leaves files
that nothing names yet; run again, it goes on after them.
"""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.packages import importing
from spqr_checks.store import manifest, timings
from spqr_checks.store.store import Store
from spqr_checks.store.transfer import Transfer

_AT_ONCE = 8
_WHOLE = {"memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "adl"}
"""Places where a file appears with its last byte or not at all."""
_ENTRIES, _FILES, _TIMINGS = "entries", "files", "timings"


def push(store: Store, address: str, verify: bool = False) -> Transfer:
    """Brings the store's sound entries to an address; what is there already stays as it is.

    Of an entry that is there, files that are missing or of another size are sent again.

    Args:
        verify: every file that is there is read, and sent again where its content is another.

    Raises:
        UserError: for an address that fsspec cannot open, and one that cannot be written.
    """
    place, done = _Place(address), Transfer()
    with _said(address):
        there, blobs = place.manifests(), place.blobs(verify)

        def bring(entry: tuple[str, str, Path]) -> None:
            kind, key, folder = entry
            if (wrong := manifest.damage(folder, kind, key)) is not None:
                done.damaged.append(f"{folder}: {wrong}")
                return
            content = (folder / manifest.MANIFEST).read_bytes()
            name = _name(kind, key)
            found = place.read(f"{_ENTRIES}/{name}") if name in there else b""
            is_there = found == content
            if found and not is_there and _is_manifest(found, kind, key):
                done.note_there(str(folder), False)
                return
            lacks = [
                (file, sha256)
                for file, (size, sha256) in manifest.listed(content, kind, key).items()
                if blobs.get(sha256) != size
            ]
            for file, sha256 in lacks:
                place.keep(folder / file, sha256)
            if not is_there:
                place.write(f"{_ENTRIES}/{name}", content)
            if is_there and not lacks:
                done.note_there(str(folder), True)
            else:
                done.taken += 1

        place.all(bring, store.entries())
        known = place.names(_TIMINGS)
        for name, path in timings.files(store.root).items():
            if name not in known:
                place.write(f"{_TIMINGS}/{name}", path.read_bytes())
    return done


def pull(address: str, store: Store) -> Transfer:
    """Brings entries from an address that the store does not hold, each checked as it arrives.

    Raises:
        UserError: for an address that fsspec cannot open or read, and as `Store.build`.
    """
    place, done = _Place(address), Transfer()
    with _said(address):

        def bring(name: str) -> None:
            kind, _, file = name.split("/")
            key = file.removesuffix(".json")
            if store.holds(kind, key):
                done.there += 1
                return
            try:
                content = place.read(f"{_ENTRIES}/{name}")
                files = manifest.listed(content, kind, key)
                store.receive(kind, key, lambda draft: place.fetch(files, content, draft))
                done.taken += 1
            except (manifest.DamagedError, FileNotFoundError) as error:
                done.damaged.append(f"{place.address}/{_ENTRIES}/{name}: {error}")

        place.all(bring, sorted(place.manifests()))
        for name in sorted(place.names(_TIMINGS)):
            if not (store.root / timings.FOLDER / name).exists():
                timings.take(store.root, name, place.read(f"{_TIMINGS}/{name}"))
    return done


def _name(kind: str, key: str) -> str:
    return f"{kind}/{key[:2]}/{key}.json"


def _is_manifest(content: bytes, kind: str, key: str) -> bool:
    try:
        manifest.listed(content, kind, key)
    except manifest.DamagedError:
        return False
    return True


class _Place:
    """An address, opened."""

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address.rstrip("/")
        if "://" not in address or "::" in address:
            raise UserError(
                f"{address!r} is no address; write one such as s3://BUCKET/FOLDER or file:///FOLDER"
            )
        bucket = address.startswith(("s3://", "s3a://"))
        try:
            with importing(address, "s3fs" if bucket else "fsspec", extra="remote"):
                self._fs, root = fsspec.url_to_fs(address)
        except (ValueError, OSError) as error:
            raise UserError(f"{address}: {error}") from error
        self._root = root.rstrip("/")
        protocols = self._fs.protocol
        known = {protocols} if isinstance(protocols, str) else {*protocols}
        self._whole = bool(known & _WHOLE)
        # what was listed an hour ago is not what is there
        self._fs.invalidate_cache()

    def all(self, bring: Callable[[Any], None], what: Iterable[Any]) -> None:
        """Brings all, several at once where that is faster and the file system is made for it."""
        with ThreadPoolExecutor(_AT_ONCE if self._fs.async_impl else 1) as pool:
            for _ in pool.map(bring, what):
                pass  # raises what one of them raised

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def names(self, folder: str) -> set[str]:
        """Files below a folder, as seen from it."""
        start = self._at(folder) + "/"
        try:
            found = self._fs.find(start, withdirs=False)
        except FileNotFoundError:
            return set()
        # in front of it some file systems put slashes of their own
        return {path.lstrip("/").removeprefix(start.lstrip("/")) for path in found}

    def manifests(self) -> set[str]:
        """Names of the manifests there; what else lies among them is passed over."""
        return {name for name in self.names(_ENTRIES) if timings.NAME.fullmatch(name)}

    def read(self, name: str) -> bytes:
        return bytes(self._fs.cat_file(self._at(name)))

    def write(self, name: str, content: bytes) -> None:
        """A small file, at once."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "content"
            path.write_bytes(content)
            self._put(path, self._at(name))

    def blobs(self, verify: bool) -> dict[str, int]:
        """SHA-256 → bytes of the files there; with ``verify`` of those only that have it."""
        try:
            found = self._fs.find(self._at(_FILES) + "/", withdirs=False, detail=True)
        except FileNotFoundError:
            return {}
        named = {path.rsplit("/", 1)[-1]: (path, about["size"]) for path, about in found.items()}
        return {
            sha256: size
            for sha256, (path, size) in named.items()
            if not verify or self._sha256(path) == sha256
        }

    def _sha256(self, path: str) -> str:
        digest = hashlib.sha256()
        with self._fs.open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        return digest.hexdigest()

    def keep(self, path: Path, sha256: str) -> None:
        """A file under its content, in place of what a broken copy left there."""
        self._put(path, self._blob(sha256))

    def fetch(self, files: dict[str, tuple[int, str]], content: bytes, draft: Path) -> None:
        """Writes an entry's files and its manifest; DamagedError for what is not as it says."""
        for name, (size, sha256) in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            digest, left = hashlib.sha256(), size
            blob = self._blob(sha256)
            with self._fs.open(blob, "rb") as there, (draft / name).open("wb") as here:
                while block := there.read(1 << 22):
                    digest.update(block)
                    here.write(block)
                    left -= len(block)
                    if left < 0:
                        break
            if left or digest.hexdigest() != sha256:
                raise manifest.DamagedError(f"{name} ({blob}) is damaged; push it with --verify")
        (draft / manifest.MANIFEST).write_bytes(content)

    def _blob(self, sha256: str) -> str:
        return self._at(f"{_FILES}/{sha256[:2]}/{sha256}")

    def _put(self, path: Path, target: str) -> None:
        self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        if self._whole:
            self._fs.put_file(str(path), target)
            return
        draft = f"{target}.{uuid.uuid4().hex[:8]}"
        self._fs.put_file(str(path), draft)
        self._fs.mv(draft, target)


@contextmanager
def _said(address: str) -> Iterator[None]:
    """What goes wrong on the way, as a sentence; file systems raise errors of their own."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{address}: {type(error).__name__}: {said}\nWhat was brought stays; run it again."
        ) from error
