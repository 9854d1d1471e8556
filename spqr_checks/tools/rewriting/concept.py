"""Concepts that pairs are written for, and the file that lists them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.text import is_blank, normalised
from spqr_checks.user_files import read_toml


@dataclass(frozen=True, slots=True)
class Concept:
    """What a model must not draw.

    Attributes:
        aliases: other names of it: inflected forms, synonyms, other languages.
    """

    name: str
    category: str
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Its own name and the others."""
        return (self.name, *self.aliases)


def read_concepts(path: Path) -> tuple[Concept, ...]:
    """Reads a TOML file: category → concepts, in file order.

    A category is an array of names, or a table from name to an array of aliases::

        warnings = ["hazard sign", "bolt"]

        [signals]
        "red triangle" = ["red triangles", "triángulo rojo"]

    Raises:
        UserError: for a file that is missing or not such TOML, an empty name, a name used twice.
    """
    table = read_toml(path)
    concepts = [c for category, entry in table.items() for c in _concepts(path, category, entry)]
    if not concepts:
        raise UserError(f'{path}: no concepts; write lines such as warnings = ["hazard sign"]')
    category_of: dict[str, str] = {}
    for concept in concepts:
        name, category = concept.name, concept.category
        if any(map(is_blank, (category, *concept.names))):
            raise UserError(f"{path}: a name of {name!r} in {category!r} is empty")
        other = category_of.setdefault(normalised(name), category)
        if other is not category:
            raise UserError(
                f"{path}: concept {name!r} is in {other!r} and in {category!r}; "
                "a concept has one category"
            )
    if len(category_of) != len(concepts):
        raise UserError(f"{path}: a category lists one concept twice; remove one")
    return tuple(concepts)


def _concepts(path: Path, category: str, entry: Any) -> Iterator[Concept]:
    table: Any = entry
    if _is_texts(entry):
        table = {name: [] for name in entry}
        if len(table) != len(entry):
            raise UserError(f"{path}: {category!r} lists one concept twice; remove one")
    if not isinstance(table, dict) or not all(map(_is_texts, table.values())):
        raise UserError(
            f"{path}: {category!r} must be an array of concepts, or a table of concepts with an "
            "array of aliases each"
        )
    for name, aliases in table.items():
        yield Concept(name, category, tuple(aliases))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
