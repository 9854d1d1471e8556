"""Digests of recipes, files and source code: the fingerprints that address the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

_PACKAGE = Path(__file__).parent
_LENGTH = 32


def canonical(value: Json) -> str:
    """JSON text with sorted keys and no spaces; raises ValueError for NaN and infinities."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def digest(value: Json) -> str:
    """First 32 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:_LENGTH]


def file_digest(path: Path) -> str:
    """First 32 hexadecimal digits of the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_LENGTH]


@lru_cache
def library_version(package: str) -> str:
    """Version of an installed package, read once; PackageNotFoundError if it is not installed."""
    return version(package)


@lru_cache
def source_digest(*parts: str) -> str:
    """Digest of this package's Python sources below the given files or folders.

    It belongs to every recipe whose bytes that code decides, so that a changed method never
    meets the artefacts of its predecessor.
    """
    files: list[Path] = []
    for part in parts:
        path = _PACKAGE / part
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return digest({str(f.relative_to(_PACKAGE)): file_digest(f) for f in files})
