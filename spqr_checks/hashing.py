"""Digests of recipes and files: the fingerprints that address the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

_LENGTH = 32
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)


def canonical(value: Json) -> str:
    """JSON text with sorted keys and no spaces; raises ValueError for NaN and infinities."""
    return _ENCODER.encode(value)


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
