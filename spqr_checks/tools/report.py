"""The report beside a file that is written: with what it was made, what failed; for resuming."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, canonical
from spqr_checks.store import leases
from spqr_checks.user_files import replace_text

VERSION = 1
T = TypeVar("T")


def report_path(out: Path) -> Path:
    """Where the report of a file lies."""
    return out.with_name(f"{out.name}.report.json")


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keeps other processes from writing the file; raises UserError if one is doing so."""
    with ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            lock = leases.lock(out.with_name(f".{out.name}.lock"), wait=False)
            mine = stack.enter_context(lock)
        except OSError as error:
            raise UserError(f"{out}: cannot be written: {error.strerror}") from None
        if not mine:
            raise UserError(f"{out}: another process is writing this file; wait for it")
        yield


def write_report(out: Path, recipe: Mapping[str, Json], **content: Any) -> None:
    """Writes the report of a file in one step; raises UserError if that cannot be done."""
    value = {"version": VERSION, "recipe": recipe, **content}
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    replace_text(report_path(out), text + "\n")


def read_report(
    out: Path, recipe: Mapping[str, Json], parse: Callable[[Any], T], what: str, settings: str
) -> T | None:
    """What the report of an earlier run with the same recipe says; None for a new file.

    Args:
        parse: makes it of the report's content.
        what: the kind of file, for messages.
        settings: what decides the recipe, for messages.

    Raises:
        UserError: for a file without a report, a report that is none, or one of another recipe.
    """
    path = report_path(out)
    if not path.exists():
        if not out.exists():
            return None
        raise UserError(f"{out} exists but its report {path.name} does not: choose another output")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["version"] != VERSION:
            raise UserError(f"{path}: version {value['version']!r}; this is version {VERSION}")
        found, before = parse(value), dict(value["recipe"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the report of a {what} ({error})") from None
    if canonical(before) != canonical(recipe):
        raise UserError(
            f"{out} was begun with {settings} (see {path.name}): "
            "repeat those, or choose another output"
        )
    return found
