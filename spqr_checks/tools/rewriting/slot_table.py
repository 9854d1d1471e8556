"""Tables of a world whose captions are grammar-like: templates, words, what may replace them."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from spqr_checks.errors import UserError, refused_field
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.user_files import read_toml

Words = dict[str, str]
"""Slot → word."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SlotConcept(_Table):
    """A concept as words in slots.

    Attributes:
        shown_by: slot → word; a caption with all of these words asks for the concept.
        replace: slot → words, one of which takes the place of the slot's word in a safe caption.
        aliases: other names of the concept, in any language.
    """

    category: str
    shown_by: Words
    replace: dict[str, tuple[str, ...]]
    aliases: tuple[str, ...] = ()


class SlotTable(_Table):
    """The captions of a world.

    Attributes:
        templates: texts with slots in braces, ``a {colour} {shape}``; a slot stands once.
        slots: slot → its words.
        concepts: name → how it is shown and what replaces it.
        never: combinations of words that no caption has.
    """

    name: str
    templates: tuple[str, ...]
    slots: dict[str, tuple[str, ...]]
    concepts: dict[str, SlotConcept]
    never: tuple[Words, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> SlotTable:
        if not self.name or not self.templates or not self.concepts:
            raise ValueError("name, templates and concepts must not be empty")
        for slot, words in self.slots.items():
            if not words or not all(words) or len(set(words)) != len(words):
                raise ValueError(f"slot {slot!r} needs words, each once and none empty")
        for template in self.templates:
            self._known(dict.fromkeys(slots_of(template)), f"template {template!r}")
        for combination in self.never:
            self._known(combination, "never")
        for name, concept in self.concepts.items():
            where = f"concept {name!r}"
            self._known(concept.shown_by, where)
            if not concept.shown_by or not any(concept.replace.values()):
                raise ValueError(f"{where} needs shown_by and replace")
            for slot, words in concept.replace.items():
                for word in words:
                    self._known({slot: word}, f"{where}, replace")
                if slot not in concept.shown_by or concept.shown_by[slot] in words:
                    raise ValueError(
                        f"{where}: replacing {slot!r} must take away a word that shows the concept"
                    )
            if not any(concept.shown_by.keys() <= set(slots_of(t)) for t in self.templates):
                raise ValueError(f"{where}: no template has all its slots")
        return self

    def _known(self, words: Mapping[str, str | None], where: str) -> None:
        for slot, word in words.items():
            if slot not in self.slots:
                raise ValueError(f"{where}: no slot {slot!r}")
            if word is not None and word not in self.slots[slot]:
                raise ValueError(f"{where}: {word!r} is no word of slot {slot!r}")

    @classmethod
    def parse(cls, value: Mapping[str, Any], where: str) -> SlotTable:
        """A table from plain values; raises UserError, which says ``where``."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise UserError(f"{where}: {refused_field(error)}") from None

    @classmethod
    def read(cls, path: Path) -> SlotTable:
        """A table from a TOML file; raises UserError."""
        return cls.parse(read_toml(path), str(path))

    def listed_concepts(self) -> tuple[Concept, ...]:
        """The concepts of the table, in its order."""
        return tuple(Concept(name, c.category, c.aliases) for name, c in self.concepts.items())

    def allows(self, words: Words) -> bool:
        """Whether no forbidden combination is among the words."""
        return not any(combination.items() <= words.items() for combination in self.never)

    def is_safe(self, words: Words) -> bool:
        """Whether the words are allowed and show no concept of the table, this one or another."""
        return self.allows(words) and not any(
            concept.shown_by.items() <= words.items() for concept in self.concepts.values()
        )

    def parses(self, caption: str) -> list[tuple[str, Words]]:
        """Templates that could have made the caption, with the words in their slots."""
        found = ((template, pattern.fullmatch(caption)) for template, pattern in self._patterns)
        return [(template, match.groupdict()) for template, match in found if match]

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        choices = {slot: "|".join(map(re.escape, words)) for slot, words in self.slots.items()}
        return [
            (
                template,
                re.compile(
                    "".join(
                        re.escape(literal) + (f"(?P<{slot}>{choices[slot]})" if slot else "")
                        for literal, slot, _, _ in string.Formatter().parse(template)
                    )
                ),
            )
            for template in self.templates
        ]


def slots_of(template: str) -> tuple[str, ...]:
    """The slots of a template, in order; raises ValueError for anything but plain ``{slot}``."""
    parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    slots = tuple(str(slot) for _, slot, _, _ in parts)
    plain = all(slot.isidentifier() for slot in slots) and not any(s or c for *_, s, c in parts)
    if not plain or len(set(slots)) != len(slots):
        raise ValueError(f"template {template!r}: slots are names in braces, each once")
    return slots
