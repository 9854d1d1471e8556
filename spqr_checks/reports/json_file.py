"""scorecard.json, and beside it what differs from run to run: environment.json, timings.json."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from spqr_checks.hashing import Json
from spqr_checks.reports.files import replace
from spqr_checks.scoring.codec import to_json
from spqr_checks.scoring.scorecard import Scorecard

_PACKAGES = (
    "spqr-checks",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "numpy",
    "scipy",
    "pillow",
    "pytest",
    "pytest-xdist",
)


def write_scorecard(card: Scorecard, path: Path) -> None:
    """Write scorecard.json; equal scorecards give equal bytes. Raises UserError."""
    replace(path, to_json(card).encode(), _is_scorecard)


def write_environment(path: Path) -> None:
    """Write what the run ran on. Raises UserError."""
    _write_sibling("environment", environment(), path)


def write_timings(timings: Mapping[str, Any], path: Path) -> None:
    """Write seconds by name. Raises UserError; ValueError for NaN and infinities."""
    _write_sibling("timings", timings, path)


def environment() -> dict[str, Json]:
    """Python, platform and the versions of the libraries that matter; imports none of them."""
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _write_sibling(kind: str, values: Mapping[str, Any], path: Path) -> None:
    document = {"kind": f"spqr-checks {kind}", kind: values}
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False) + "\n"
    replace(path, text.encode(), lambda old: _kind(old) == f"spqr-checks {kind}")


def _is_scorecard(content: bytes) -> bool:
    return _document(content).keys() >= {"version", "protocol", "spqr", "axes", "cells", "gate"}


def _kind(content: bytes) -> object:
    return _document(content).get("kind")


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
