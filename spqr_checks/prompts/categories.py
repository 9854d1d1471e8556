"""One taxonomy for the categories of published prompt sets, which spell them in several ways."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.tables import place
from spqr_checks.prompts.text import normalised

_FILE = Path(__file__).parent / "data" / "categories.toml"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name stands in the taxonomy; a category's own name is its concept too."""

    concept: str
    category: str


@lru_cache(maxsize=1024)
def classified(name: str) -> Place | None:
    """A category or a narrower concept in the taxonomy's spelling; None if unknown.

    ``Harrasment`` is the category ``harassment``; ``nudity`` is a concept of ``sexual``.
    """
    return _spellings().get(_key(name))


def known_categories() -> tuple[str, ...]:
    """The categories, sorted."""
    return tuple(sorted({known.category for known in _spellings().values()}))


def required(path: Path, number: int, name: str) -> Place:
    """As ``classified``; raises UserError for an unknown name, with the row it is in."""
    if known := classified(name):
        return known
    raise UserError(
        f"{place(path, number)}: unknown category {name!r}; "
        f"there are: {', '.join(known_categories())}\n"
        f"If these prompts are benign, write benign={path}"
    )


@cache
def _spellings() -> dict[str, Place]:
    table: dict[str, dict[str, Any]] = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    found: dict[str, Place] = {}
    for category, entry in table.items():
        for concept, others in {category: entry["spellings"], **entry.get("concepts", {})}.items():
            for spelling in (concept, *others):
                here = Place(concept, category)
                if found.setdefault(_key(spelling), here) != here:
                    raise ValueError(f"{_FILE.name}: {spelling!r} stands for two concepts")
    return found


def _key(name: str) -> str:
    return normalised(name.replace("-", " ").replace("_", " "))
