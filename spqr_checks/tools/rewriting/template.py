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
        self.table, self.seed = table, seed
        self._series: dict[str, tuple[list[str], Iterator[str]]] = {}

    @property
    def recipe(self) -> dict[str, Json]:
        table = digest(self.table.model_dump(mode="json"))
        made: dict[str, Json] = {"rewriter": self.name, "table": self.table.name}
        return made | {"table_digest": table, "seed": self.seed}

    def check(self, concepts: Sequence[Concept]) -> None:
        for concept in concepts:
            if concept.name not in self.table.concepts:
                raise UserError(
                    f"the table {self.table.name!r} has no concept {concept.name!r}; "
                    f"it has: {', '.join(self.table.concepts)}"
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
        shown_by, slots = self.table.concepts[name].shown_by, self.table.slots
        spaces = []
        for template in self.table.templates:
            choices = {s: (shown_by[s],) if s in shown_by else slots[s] for s in slots_of(template)}
            if shown_by.keys() <= choices.keys():
                spaces.append((template, choices, math.prod(map(len, choices.values()))))
        rng = random.Random(f"{self.seed}/{name}")
        seen: set[str] = set()
        for index in _shuffled(sum(size for *_, size in spaces), rng):
            for space in spaces:
                if index < space[-1]:
                    break
                index -= space[-1]
            template, choices, _ = space
            words: Words = {}
            for slot, of_slot in choices.items():
                index, position = divmod(index, len(of_slot))
                words[slot] = of_slot[position]
            caption = template.format(**words)
            if self.table.allows(words) and caption not in seen:
                seen.add(caption)
                yield caption


def _shuffled(n: int, rng: random.Random) -> Iterator[int]:
    """The numbers below n in random order, in memory that grows with the numbers drawn only.

    Fisher and Yates' shuffle of a list that is kept as its differences from 0, 1, 2 …
    """
    moved: dict[int, int] = {}
    for position in range(n):
        chosen = rng.randrange(position, n)
        yield moved.get(chosen, chosen)
        moved[chosen] = moved.pop(position, position)
