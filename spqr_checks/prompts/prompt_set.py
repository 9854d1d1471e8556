"""The prompts of a run: packaged sets and the user's files, narrowed to what was asked for."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from spqr_checks.errors import UserError, refuse_all
from spqr_checks.prompts import domains as wrappers
from spqr_checks.prompts.formats.base import Reading
from spqr_checks.prompts.prompt import ALL, Prompt, PromptGroup
from spqr_checks.prompts.scenarios import Scenario
from spqr_checks.prompts.sources import read_source
from spqr_checks.prompts.tables import field_name

T = TypeVar("T")
_NAMES = ("concept", "category", "language", "domain")


@dataclass(frozen=True)
class PromptSet:
    """Prompts in file order; ids are unique.

    Attributes:
        readings: source → what was made of it, before anything was narrowed.
    """

    prompts: tuple[Prompt, ...]
    readings: Mapping[str, Reading] = field(default_factory=dict)

    @classmethod
    def load(
        cls, sources: Sequence[str], doubtful: bool = False, needs_harmful: bool = True
    ) -> PromptSet:
        """Reads and joins prompt sets.

        Args:
            sources: packaged sets, files and Hub addresses, see ``sources``.
            doubtful: whether translations that are marked as doubtful count.
            needs_harmful: whether sets without a harmful prompt are refused.

        Raises:
            UserError: for unreadable files, ids used in two files, a concept in two categories,
                a name in two spellings, a concept that no harmful prompt has.
        """
        joining = Joining()
        readings: dict[str, Reading] = {}
        problems: list[str] = []
        for source in sources:
            if source in readings:
                raise UserError(f"{source}: given twice; name every prompt file once")
            try:
                readings[source] = read_source(source, doubtful)
            except UserError as error:
                problems += error.problems
        refuse_all(problems)
        for source, reading in readings.items():
            joining.add(source, reading.prompts)
        if needs_harmful and not any(p.kind == "harmful" for p in joining.prompts):
            raise UserError(
                f"{', '.join(sources)}: no prompts of kind 'harmful'; safety cannot be measured"
            )
        if needs_harmful:
            refuse_all(_misnamed(joining.prompts, readings.values()))
        return cls(tuple(joining.prompts), readings)

    @cached_property
    def concepts(self) -> tuple[str, ...]:
        """Concepts of the harmful prompts, sorted: what the model must not draw."""
        return tuple(sorted({p.concept for p in self.prompts if p.kind == "harmful"}))

    @cached_property
    def categories(self) -> dict[str, str]:
        """Concept → category."""
        return {p.concept: p.category for p in self.prompts if p.kind == "harmful"}

    @cached_property
    def _by_group(self) -> dict[PromptGroup, tuple[Prompt, ...]]:
        grouped: dict[PromptGroup, list[Prompt]] = {}
        for prompt in self.prompts:
            grouped.setdefault(prompt.group, []).append(prompt)
        return {group: tuple(grouped[group]) for group in sorted(grouped)}

    @property
    def groups(self) -> tuple[PromptGroup, ...]:
        return tuple(self._by_group)

    def of(self, group: PromptGroup) -> tuple[Prompt, ...]:
        """Prompts of one group, in file order; none of an unknown group."""
        return self._by_group.get(group, ())

    def narrowed(
        self,
        concepts: Iterable[str] | None = None,
        languages: Iterable[str] | None = None,
        domains: Iterable[str] | None = None,
    ) -> PromptSet:
        """The prompts of the chosen concepts, languages and domains; None keeps all.

        A concept may be named by its category, which stands for all its concepts.

        Raises:
            UserError: for a name that no prompt has, listing those there are.
        """
        wanted_concepts = self._concepts_named(concepts)
        wanted_languages = _chosen("language", languages, {p.language for p in self.prompts})
        wanted_domains = _chosen("domain", domains, {p.domain for p in self.prompts})
        kept = tuple(
            p
            for p in self.prompts
            if (p.concept == ALL or p.concept in wanted_concepts)
            and p.language in wanted_languages
            and p.domain in wanted_domains
        )
        return replace(self, prompts=kept)

    def within(self, scenarios: Collection[Scenario]) -> PromptSet:
        """The prompts of which any of the scenarios has language and domain."""
        kept = (p for p in self.prompts if any(s.has(p.language, p.domain) for s in scenarios))
        return replace(self, prompts=tuple(kept))

    def sampled(self, per_group: int | None, seed: int = 0) -> PromptSet:
        """The first prompts of each group in the order of ``shuffled``; None keeps all."""
        if per_group is None:
            return self
        kept = {
            prompt.id
            for prompts in self._by_group.values()
            for prompt in shuffled(prompts, seed, lambda p: p.text)[:per_group]
        }
        return replace(self, prompts=tuple(p for p in self.prompts if p.id in kept))

    def wrapped(self, domains: Sequence[str]) -> PromptSet:
        """These prompts, and the plain ones wrapped in the templates of ``domains``.

        Raises:
            UserError: for an unknown domain, one that prompts have already, a language without a
                template, or a set without plain prompts.
        """
        return replace(self, prompts=(*self.prompts, *wrappers.wrapped(self.prompts, domains)))

    def _concepts_named(self, names: Iterable[str] | None) -> set[str]:
        if names is None:
            return set(self.concepts)
        chosen: set[str] = set()
        for name in names:
            members = {c for c, category in self.categories.items() if name in (c, category)}
            if not members:
                others = sorted(set(self.categories.values()) - {ALL})
                known = ", ".join([*self.concepts, *others])
                raise UserError(f"unknown concept or category {name!r}; there are: {known}")
            chosen |= members
        return chosen


def _misnamed(prompts: Sequence[Prompt], readings: Iterable[Reading]) -> Iterator[str]:
    """Concepts that look-alike and benign prompts name and no harmful one has."""
    known = sorted({p.concept for p in prompts if p.kind == "harmful"})
    placed = {name: place for reading in readings for name, place in reading.places.items()}
    for prompt in prompts:
        place = placed.get(prompt.id)
        if place is None or prompt.kind == "harmful" or prompt.concept in (ALL, *known):
            continue
        near = difflib.get_close_matches(prompt.concept, known, 1, 0.6)
        remedy = f"do you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
        yield (
            f"{place}: a {prompt.kind} prompt of the concept {prompt.concept!r}, "
            f"which no harmful prompt has; {remedy}"
        )


def _chosen(what: str, names: Iterable[str] | None, known: set[str]) -> set[str]:
    if names is None:
        return known
    chosen = set(names)
    if unknown := sorted(chosen - known):
        raise UserError(
            f"unknown {what} {unknown[0]!r}; the prompts have: {', '.join(sorted(known))}"
        )
    return chosen


def shuffled(items: Iterable[T], seed: int, text: Callable[[T], str] = str) -> list[T]:
    """Items by the SHA-256 of seed and text: at random, but alike in every run.

    What is drawn of them does not depend on the order of the file, more of them than before begin
    with those of before, and a row that is added or removed changes at most one of the first n.
    """
    return sorted(items, key=lambda i: hashlib.sha256(f"{seed}\n{text(i)}".encode()).digest())


@dataclass
class Joining:
    """Prompts so far, with what they said first."""

    prompts: list[Prompt] = field(default_factory=list)
    _origin: dict[str, str] = field(default_factory=dict)
    _category: dict[str, str] = field(default_factory=dict)
    _spelling: dict[tuple[str, str], str] = field(default_factory=dict)
    _known: set[tuple[str, ...]] = field(default_factory=set)

    def add(self, source: str, prompts: Iterable[Prompt]) -> None:
        """Takes a file's prompts in.

        Raises:
            UserError: for an id that is there already, a concept in a second category, or a name
                in a second spelling, which would make two cells of one.
        """
        for prompt in prompts:
            if prompt.id in self._origin:
                raise UserError(
                    f"prompt id {prompt.id!r} is in both {self._origin[prompt.id]} and {source}"
                )
            self._origin[prompt.id] = source
            names = tuple(getattr(prompt, name) for name in _NAMES)
            if names not in self._known:
                self._check(source, prompt, names)
                self._known.add(names)
            self.prompts.append(prompt)

    def _check(self, source: str, prompt: Prompt, names: tuple[str, ...]) -> None:
        for what, name in zip(_NAMES, names, strict=True):
            known = self._spelling.setdefault((what, field_name(name)), name)
            if known != name:
                raise UserError(
                    f"{source}: {what} {name!r} is spelled {known!r} elsewhere; spell it one way"
                )
        known = self._category.setdefault(prompt.concept, prompt.category)
        if prompt.concept != ALL and known != prompt.category:
            raise UserError(
                f"{source}: concept {prompt.concept!r} is in the categories "
                f"{known!r} and {prompt.category!r}; give it one"
            )
