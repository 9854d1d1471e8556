"""Files that users name: refused with a sentence where they cannot be what they are taken for.

A name may be anything (a pipe that never ends, a link to nothing, a null byte), and so may the
text in a file: Python's own parsers give up on numbers of thousands of digits and on thousands of
brackets in ways of their own. Light: the standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tomllib
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError

MOST_BYTES = 512 * 2**20
"""Of a table of prompts or captions; MS COCO's captions of 2014 have 70 MB."""
MOST_CONFIGURATION = 16 * 2**20
"""Of a file of settings, options or labels."""


def path_of(text: str | Path) -> Path:
    """The path that a text names, ``~`` expanded; it need not exist.

    Raises:
        UserError: for a home of nobody, a null byte, or a name longer than the system takes.
    """
    shown = str(text) if len(str(text)) <= 80 else f"{str(text)[:80]}…"
    try:
        path = Path(text).expanduser()
        path.exists()  # asks the system
        os.lstat(path)
    except RuntimeError:
        raise UserError(f"{shown}: there is no such user; write the whole path") from None
    except (FileNotFoundError, NotADirectoryError):
        return path
    except ValueError:
        raise UserError(f"{shown!r}: no file can be named like that; correct the path") from None
    except OSError as error:
        raise UserError(f"{shown}: cannot be looked at: {error.strerror}; correct it") from None
    return path


def refuse_irregular(path: Path, most: int | None = None) -> None:
    """Raises UserError unless this is a regular file, or a link to one, of at most these bytes."""
    try:
        status = path.stat()
    except FileNotFoundError:
        where = " (a link to nothing)" if path.is_symlink() else ""
        raise UserError(f"{path}: cannot be read: no such file{where}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise UserError(f"{path}: is {what}, and a file is needed")
    if most is not None and status.st_size > most:
        raise UserError(
            f"{path}: {status.st_size / 2**20:.0f} MiB, and at most {most / 2**20:.0f} MiB are "
            "read; is this the file that was meant?"
        )


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: where it cannot be read as such.
    """
    refuse_irregular(path, most)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def parse_json(text: str, place: str | Path, line: int | None = None) -> Any:
    """The value of a JSON text.

    Args:
        place: the file, as errors name it.
        line: its line, where the text is one of many.

    Raises:
        UserError: for text that is no JSON, or more of it than can be parsed.
    """
    where = f"{place}:{line}" if line else f"{place}"
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{place}:{line or error.lineno}"
        raise UserError(f"{where}: not JSON: {error.msg}; correct it") from None
    except RecursionError:
        raise UserError(f"{where}: not JSON: nested too deeply; correct it") from None
    except ValueError:  # Python's limit on digits
        raise UserError(f"{where}: not JSON: a number of too many digits; correct it") from None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises UserError for one that cannot be read as such."""
    value = parse_json(read_text(path, MOST_CONFIGURATION), path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no object ({{…}}); correct it")
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; raises UserError for one that cannot be read as such."""
    text = read_text(path, MOST_CONFIGURATION)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}; correct it") from None
    except RecursionError:
        raise UserError(f"{path}: not valid TOML: nested too deeply; correct it") from None
    except ValueError:
        said = "a number of too many digits, or a date that there is not"
        raise UserError(f"{path}: not valid TOML: {said}; correct it") from None


def replace_text(path: Path, text: str) -> None:
    """Puts a UTF-8 file in place by an atomic rename; raises UserError if that cannot be done."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
