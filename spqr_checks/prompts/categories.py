"""One taxonomy for the categories of published prompt sets, which spell them in several ways."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from spqr_checks.prompts.text import normalised

_FILE = Path(__file__).parent / "data" / "categories.toml"


def canonical_category(name: str) -> str | None:
    """The taxonomy's spelling of a category (``Harrasment`` is ``harassment``); None if unknown."""
    return _spellings().get(_key(name))


def known_categories() -> tuple[str, ...]:
    """The taxonomy, sorted."""
    return tuple(sorted(set(_spellings().values())))


@cache
def _spellings() -> dict[str, str]:
    table: dict[str, list[str]] = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for category, others in table.items():
        for spelling in (category, *others):
            if found.setdefault(_key(spelling), category) != category:
                raise ValueError(f"{_FILE.name}: {spelling!r} stands for two categories")
    return found


def _key(name: str) -> str:
    return normalised(name.replace("-", " ").replace("_", " "))
