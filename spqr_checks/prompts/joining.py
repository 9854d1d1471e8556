"""Prompts of several files put together: what contradicts itself is refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from spqr_checks.errors import UserError
from spqr_checks.prompts.prompt import ALL, Prompt
from spqr_checks.prompts.rows import field_name

_NAMES = ("concept", "category", "language", "domain")


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
                self._check_spelling(source, names)
                self._check_category(source, prompt)
                self._known.add(names)
            self.prompts.append(prompt)

    def _check_category(self, source: str, prompt: Prompt) -> None:
        known = self._category.setdefault(prompt.concept, prompt.category)
        if prompt.concept != ALL and known != prompt.category:
            raise UserError(
                f"{source}: concept {prompt.concept!r} is in the categories "
                f"{known!r} and {prompt.category!r}; give it one"
            )

    def _check_spelling(self, source: str, names: tuple[str, ...]) -> None:
        for what, name in zip(_NAMES, names, strict=True):
            known = self._spelling.setdefault((what, field_name(name)), name)
            if known != name:
                raise UserError(
                    f"{source}: {what} {name!r} is spelled {known!r} elsewhere; spell it one way"
                )
