"""The folder a store lives on: what can be wrong with it, said in words and with a remedy."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spqr_checks.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER = {errno.ENOTDIR, errno.EEXIST}


@contextmanager
def user_errors(root: Path, *, only_full: bool = False) -> Iterator[None]:
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
        where = f"the store {root}"
        # libraries that write files themselves report a full disk in words only
        if code in _FULL or "No space left on device" in str(error):
            what = f"no space left for {where}: free some, or choose another store folder"
        elif only_full:
            raise
        elif code in _NO_FOLDER:
            what = f"{where} must be a folder ({error}): choose another store folder"
        elif code in _FORBIDDEN:
            what = (
                f"{where} cannot be read and written ({error}): "
                "change its permissions or choose another store folder"
            )
        elif code == errno.ENOLCK:
            what = f"{where} has no file locks ({error}): choose a folder on a local disk"
        else:
            raise
        raise UserError(what) from error


def check(root: Path) -> None:
    """Raise UserError if nothing could be written at or below a folder; writes nothing."""
    folder = root
    while not os.path.lexists(folder):
        folder = folder.parent
    with user_errors(root):
        if not folder.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        if shutil.disk_usage(folder).free == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def children(folder: Path) -> list[Path]:
    """What is directly in a folder, sorted; nothing if there is no such folder."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def size(folder: Path) -> int:
    """Bytes of all files below a folder; links count as themselves, vanished files not at all."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue
    return total
