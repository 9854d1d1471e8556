"""Report files: written whole or not at all, never over a file of somebody else's."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from spqr_checks.errors import UserError


def replace(path: Path, content: bytes, is_ours: Callable[[bytes], bool]) -> None:
    """Write a file atomically.

    Args:
        path: the file; missing parent folders are made.
        content: its bytes.
        is_ours: whether the bytes of a file that is already there are a report of this kind.

    Raises:
        UserError: another file (or a folder) is in the way, or the place cannot be written.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        if path.is_dir() or (path.exists() and not is_ours(path.read_bytes())):
            raise UserError(
                f"{path} is already there and was not written as such a report.\n"
                "Move it away or choose another folder with --spqr-report."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}.\n"
            "Make room or choose another folder with --spqr-report."
        ) from error


def replace_marked(path: Path, text: str, mark: str) -> None:
    """`replace` for a text that begins with ``mark``, as all reports of its kind do."""
    content = text.encode("utf-8", "backslashreplace")
    replace(path, content, lambda old: old.startswith(mark.encode()))


def append_step_summary(text: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Append a text to the file that ``$GITHUB_STEP_SUMMARY`` names; False if none is.

    Raises:
        UserError: that file cannot be written.
    """
    name = environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return False
    try:
        with Path(name).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise UserError(
            f"$GITHUB_STEP_SUMMARY names {name}, which cannot be written: {error.strerror}."
        ) from error
    return True
