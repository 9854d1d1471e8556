"""Pairs from a slot table: one word is replaced, everything else stays."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, digest
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.rewriter import Answer, Failed, Written
from spqr_checks.tools.rewriting.slot_table import SlotTable, Words, slots_of


class TemplateRewriter:
    """Writes captions of a slot table.

    The unsafe captions of a concept come in an order that the seed decides, without repetition; a
    longer series begins with the shorter one.
    """

    name = "template"

    def __init__(self, table: SlotTable, seed: int = 0) -> None:
        self.table = table
        self.seed = seed
        self._series: dict[str, tuple[list[str], Iterator[str]]] = {}

    @property
    def recipe(self) -> dict[str, Json]:
        table: Json = self.table.model_dump(mode="json")
        return {
            "rewriter": self.name,
            "table": self.table.name,
            "table_digest": digest(table),
            "seed": self.seed,
        }

    def check(self, concepts: Sequence[Concept]) -> None:
        for concept in concepts:
            if concept.name not in self.table.concepts:
                known = ", ".join(self.table.concepts)
                raise UserError(
                    f"the table {self.table.name!r} has no concept {concept.name!r}; "
                    f"it has: {known}"
                )

    def ask(self, concept: Concept, number: int, earlier: Sequence[str]) -> Answer:
        if concept.name not in self._series:
            self._series[concept.name] = ([], self._captions(concept.name))
        drawn, more = self._series[concept.name]
        while len(drawn) <= number:
            caption = next(more, None)
            if caption is None:
                return Failed("exhausted", f"the table has {len(drawn)} captions of this concept")
            drawn.append(caption)
        return Written(drawn[number])

    def rewrite(self, concept: Concept, unsafe: str) -> Answer:
        rules = self.table.concepts[concept.name]
        captions = [
            template.format(**words)
            for template, shown in self.table.parses(unsafe)
            if rules.shown_by.items() <= shown.items()
            for slot, choices in rules.replace.items()
            for word in choices
            if self.table.is_safe(words := shown | {slot: word})
        ]
        if not captions:
            return Failed("no replacement", "no word of the table makes this caption safe")
        rng = random.Random(f"{self.seed}/{concept.name}/{unsafe}")
        return Written(rng.choice(captions))

    def _captions(self, name: str) -> Iterator[str]:
        shown_by = self.table.concepts[name].shown_by
        spaces = [
            _Space(template, self.table, shown_by)
            for template in self.table.templates
            if shown_by.keys() <= set(slots_of(template))
        ]
        rng = random.Random(f"{self.seed}/{name}")
        seen: set[str] = set()
        for index in _shuffled(sum(space.size for space in spaces), rng):
            for space in spaces:
                if index < space.size:
                    break
                index -= space.size
            words = space.words(index)
            caption = space.template.format(**words)
            if self.table.allows(words) and caption not in seen:
                seen.add(caption)
                yield caption


class _Space:
    """All fillings of one template, numbered."""

    def __init__(self, template: str, table: SlotTable, fixed: Words) -> None:
        self.template = template
        self._choices = {
            slot: (fixed[slot],) if slot in fixed else table.slots[slot]
            for slot in slots_of(template)
        }
        self.size = math.prod(len(words) for words in self._choices.values())

    def words(self, index: int) -> Words:
        words: Words = {}
        for slot, choices in self._choices.items():
            index, position = divmod(index, len(choices))
            words[slot] = choices[position]
        return words


def _shuffled(n: int, rng: random.Random) -> Iterator[int]:
    """The numbers below n in random order, in memory that grows with the numbers drawn only.

    Fisher and Yates' shuffle of a list that is kept as its differences from 0, 1, 2 …
    """
    moved: dict[int, int] = {}
    for position in range(n):
        chosen = rng.randrange(position, n)
        yield moved.get(chosen, chosen)
        moved[chosen] = moved.pop(position, position)
