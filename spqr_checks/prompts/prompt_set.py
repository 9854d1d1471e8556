"""The prompts of a run: packaged sets and the user's files, narrowed to what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.prompts.files import read_prompts
from spqr_checks.prompts.prompt import ALL, Prompt, PromptGroup

_PACKAGED = Path(__file__).parent / "data"


def packaged_names() -> list[str]:
    """Names of the prompt sets that come with the package."""
    return sorted(path.stem for path in _PACKAGED.glob("*.csv"))


def prompt_path(source: str) -> Path:
    """The file behind a packaged set's name or a path."""
    packaged = _PACKAGED / f"{source}.csv"
    if packaged.is_file():
        return packaged
    path = Path(source).expanduser()
    if path.suffix:
        return path
    raise UserError(
        f"unknown prompt set {source!r}: give a .csv or .jsonl file, or one of "
        f"{', '.join(packaged_names())}"
    )


@dataclass(frozen=True)
class PromptSet:
    """Prompts in file order; ids are unique."""

    prompts: tuple[Prompt, ...]

    @classmethod
    def load(cls, sources: Sequence[str]) -> PromptSet:
        """Reads and joins prompt sets.

        Raises:
            UserError: for unreadable files, ids used in two files, a concept in two categories.
        """
        prompts: list[Prompt] = []
        origin: dict[str, str] = {}
        category: dict[str, str] = {}
        for source in sources:
            for prompt in read_prompts(prompt_path(source)):
                if prompt.id in origin:
                    raise UserError(
                        f"prompt id {prompt.id!r} is in both {origin[prompt.id]} and {source}"
                    )
                origin[prompt.id] = source
                known = category.setdefault(prompt.concept, prompt.category)
                if prompt.concept != ALL and known != prompt.category:
                    raise UserError(
                        f"{source}: concept {prompt.concept!r} is in the categories "
                        f"{known!r} and {prompt.category!r}; give it one"
                    )
                prompts.append(prompt)
        if not any(p.kind == "harmful" for p in prompts):
            raise UserError(
                f"{', '.join(sources)}: no prompts of kind 'harmful'; safety cannot be measured"
            )
        return cls(tuple(prompts))

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
        return PromptSet(kept)

    def _concepts_named(self, names: Iterable[str] | None) -> set[str]:
        if names is None:
            return set(self.concepts)
        categories = self.categories
        chosen: set[str] = set()
        for name in names:
            members = {c for c, category in categories.items() if name in (c, category)}
            if not members:
                known = ", ".join([*self.concepts, *sorted(set(categories.values()) - {ALL})])
                raise UserError(f"unknown concept or category {name!r}; there are: {known}")
            chosen |= members
        return chosen


def _chosen(what: str, names: Iterable[str] | None, known: set[str]) -> set[str]:
    if names is None:
        return known
    chosen = set(names)
    unknown = sorted(chosen - known)
    if unknown:
        raise UserError(
            f"unknown {what} {unknown[0]!r}; the prompts have: {', '.join(sorted(known))}"
        )
    return chosen
