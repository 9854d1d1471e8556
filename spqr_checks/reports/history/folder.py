"""A folder of scorecards: ``NAME.json`` or ``NAME/scorecard.json``, in the order of their names.

Digits count as numbers, so that v1.10 comes after v1.9.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from spqr_checks.errors import UserError, refuse_all
from spqr_checks.reports.files import create
from spqr_checks.reports.json_file import SCORECARD, read_scorecard
from spqr_checks.scoring.history import Release
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.serialize import to_json

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def read(folder: Path) -> list[Release]:
    """All releases, the first one first.

    Raises:
        UserError: no folder, nothing in it, two files for one place, or files that are no
            scorecards, all at once.
    """
    files = _files(folder)
    if not files:
        raise UserError(f"{folder}: no release is there; add one with `spqr history add`")
    releases: list[Release] = []
    problems: list[str] = []
    for name, path in files.items():
        try:
            releases.append(Release(name, read_scorecard(path)))
        except UserError as error:
            problems += error.problems
    refuse_all(problems)
    return releases


def add(folder: Path, name: str, card: Scorecard) -> Path:
    """Keeps the scorecard of a release as the latest one; returns its file.

    Raises:
        UserError: for a name that cannot be a file's, is taken, or would not come last; no file
            that is there is ever written over.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"--name {name!r}: letters, digits, '.', '_', '+' and '-' only")
    names = list(_files(folder)) if folder.is_dir() else []
    if name in names:
        raise UserError(f"{folder} has a release {name} already; choose another --name")
    if names and _order(name) <= _order(names[-1]):
        where = "before" if _order(name) < _order(names[-1]) else "beside"
        raise UserError(
            f"{name} would stand {where} {names[-1]}: releases are in the order of their names; "
            "choose a --name that comes last, such as one that begins with the date"
        )
    path = folder / f"{name}.json"
    create(path, to_json(card).encode())
    return path


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; add a release with `spqr history add`")
    found = [(path.stem, path) for path in folder.glob("*.json")]
    found += [(path.parent.name, path) for path in folder.glob(f"*/{SCORECARD}")]
    found.sort(key=lambda item: _order(item[0]))
    refuse_all(
        f"{folder}: {one.relative_to(folder)} and {other.relative_to(folder)} stand in one place "
        "of the order, in which digits are numbers; give one of them another name"
        for (name, one), (after, other) in pairwise(found)
        if _order(name) == _order(after)
    )
    return dict(found)


def _order(name: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]
