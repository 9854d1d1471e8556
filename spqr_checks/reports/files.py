"""Report files: written whole or not at all, never over a file of somebody else's."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from spqr_checks.errors import UserError

_ELSEWHERE = "Make room or choose another folder with --spqr-report."


def replace(
    path: Path, content: bytes, is_ours: Callable[[bytes], bool], remedy: str = _ELSEWHERE
) -> None:
    """Write a file atomically.

    Args:
        path: the file; missing parent folders are made.
        content: its bytes.
        is_ours: whether the bytes of a file that is already there are a report of this kind.
        remedy: what to do where it cannot be written.

    Raises:
        UserError: another file (or a folder) is in the way, or the place cannot be written.
    """
    try:
        refuse_foreign(path, is_ours, remedy)
        with _drafted(path, content) as draft:
            draft.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}.\n{remedy}"
        ) from error


def create(path: Path, content: bytes) -> None:
    """Write a new file, whole or not at all; raises UserError where there is one of that name."""
    try:
        with _drafted(path, content) as draft:
            try:
                os.link(draft, path)  # unlike a rename it never takes another's place
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                with path.open("xb") as file:
                    file.write(content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error


@contextmanager
def _drafted(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside the path that has the content; gone afterwards if it is still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def refuse_foreign(path: Path, is_ours: Callable[[bytes], bool], remedy: str = _ELSEWHERE) -> None:
    """Raises UserError if something else stands where a report is to be written."""
    if path.exists() and not (path.is_file() and is_ours(path.read_bytes())):
        raise UserError(
            f"{path} is already there and was not written as such a report.\n"
            f"{remedy.replace('Make room', 'Move it away')}"
        )


def refuse_unwritable(folder: Path, remedy: str) -> None:
    """Raises UserError if nothing could be written into a folder, which need not be there yet."""
    above = folder.absolute()
    while not os.path.lexists(above):
        above = above.parent
    said = ""
    if not above.is_dir():
        said = f"{above} is no folder"
    elif not os.access(above, os.W_OK | os.X_OK):
        said = f"{above} is not writable"
    elif shutil.disk_usage(above).free == 0:
        said = "no space is left on the disk"
    if said:
        raise UserError(f"{folder} cannot be written to: {said}.\n{remedy}")


def replace_marked(path: Path, text: str, mark: str) -> None:
    """`replace` for a text that begins with ``mark``, as all reports of its kind do."""
    content = text.encode("utf-8", "backslashreplace")
    replace(path, content, lambda old: old.startswith(mark.encode()))


def refuse_step_summary(environ: Mapping[str, str] = os.environ) -> None:
    """Raises UserError if nothing could be appended to what ``$GITHUB_STEP_SUMMARY`` names."""
    name = environ.get("GITHUB_STEP_SUMMARY", "")
    path = Path(name)
    taken = path if path.exists() else path.parent
    odd = path.is_dir() or path.is_fifo() or not taken.exists()
    if name and (odd or not os.access(taken, os.W_OK)):
        raise UserError(
            f"GITHUB_STEP_SUMMARY: {name} cannot be appended to; name a file, or unset it"
        )


def append_step_summary(text: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Append a text to the file that ``$GITHUB_STEP_SUMMARY`` names; False if none is.

    Raises:
        UserError: that file cannot be written.
    """
    name = environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return False
    refuse_step_summary(environ)
    try:
        with Path(name).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise UserError(
            f"$GITHUB_STEP_SUMMARY names {name}, which cannot be written: {error.strerror}."
        ) from error
    return True
