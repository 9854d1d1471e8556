"""scorecard.json and baseline.json, and what differs from run to run: environment, timings."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.known_good import LIBRARIES, differing, installed
from spqr_checks.reports.files import replace
from spqr_checks.scoring.baseline.comparison import BaselineComparison
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.serialize import from_json, to_json
from spqr_checks.user_files import MOST_BYTES, refuse_irregular

SCORECARD = "scorecard.json"
_DECIMALS = 6


def write_scorecard(card: Scorecard, path: Path, text: str | None = None) -> None:
    """Write scorecard.json; equal scorecards give equal bytes. Raises UserError.

    ``text``: what `to_json` gave, where it is known already.
    """
    replace(path, (to_json(card) if text is None else text).encode(), is_scorecard)


def read_scorecard(path: Path) -> Scorecard:
    """A scorecard from its file, or from the folder of reports that it is in. Raises UserError."""
    file = path / SCORECARD if path.is_dir() else path
    if file.exists():
        refuse_irregular(file, MOST_BYTES)
    try:
        return from_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} cannot be read: it is not UTF-8 text") from None
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def surroundings(path: Path) -> dict[str, Mapping[str, Any]]:
    """Environment and timings of a scorecard's own run, from the files beside it; {} without."""
    folder = path if path.is_dir() else path.parent
    found: dict[str, Mapping[str, Any]] = {}
    for kind in ("environment", "timings"):
        file = folder / f"{kind}.json"
        document = _document(file.read_bytes()) if file.is_file() else {}
        if document.get("kind") == f"spqr-checks {kind}" and isinstance(document.get(kind), dict):
            found[kind] = document[kind]
    return found


def write_baseline(comparison: BaselineComparison, path: Path) -> None:
    """Write baseline.json; equal comparisons give equal bytes. Raises UserError."""
    write_sibling("baseline", _rounded(asdict(comparison)), path)


def remove_baseline(path: Path) -> None:
    """Remove the baseline.json of an earlier run, which says nothing of this one. UserError."""
    try:
        if path.is_file() and is_sibling("baseline", path.read_bytes()):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} is of an earlier run and cannot be removed: {error.strerror or error}.\n"
            "Remove it or choose another folder with --spqr-report."
        ) from None


def environment() -> dict[str, Json]:
    """Python, platform and the versions of the libraries that matter; imports none of them.

    ``not_known_good`` names those of another major or minor version than this release was tested
    with: [installed, tested].
    """
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "versions": {name: installed(name) for name in ("spqr-checks", *LIBRARIES)},
        "not_known_good": {name: list(found) for name, found in differing().items()},
    }


def write_sibling(kind: str, values: Mapping[str, Any], path: Path) -> None:
    """Write what stands beside a scorecard: its kind (``timings``) and values.

    Raises:
        UserError: a file of another kind is in the way, or the place cannot be written.
        ValueError: for NaN and infinities.
    """
    document = {"kind": f"spqr-checks {kind}", kind: values}
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False) + "\n"
    replace(path, text.encode(), partial(is_sibling, kind))


def is_scorecard(content: bytes) -> bool:
    """Whether these are the bytes of a scorecard."""
    return _document(content).keys() >= {"version", "protocol", "spqr", "axes", "cells", "gate"}


def is_sibling(kind: str, content: bytes) -> bool:
    """Whether these are the bytes of what stands beside a scorecard; see `write_sibling`."""
    return _document(content).get("kind") == f"spqr-checks {kind}"


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS) + 0.0  # no negative zero
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
