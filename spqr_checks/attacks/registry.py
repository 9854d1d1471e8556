"""Attacks by name, and those that a run names. A new attack is one new file in this folder. Light.

The file is named after the attack (``ring_a_bell.py``: ``ring-a-bell``) and defines ``ATTACK``;
what several attacks share lies in ``search``. Other distributions add theirs through the entry
points ``spqr_checks.attacks``. No attack's file imports torch at its top.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spqr_checks.attacks.attack import Attack, Options, Scale
from spqr_checks.errors import UserError, refuse_all
from spqr_checks.hashing import Json
from spqr_checks.prompts.prompt import Prompt, PromptGroup
from spqr_checks.registry import Registry

ATTACKS: Registry[Attack[Any]] = Registry(
    "attack",
    "spqr_checks.attacks",
    "ATTACK",
    "spqr_checks.attacks",
    lambda found: isinstance(found, Attack),
)


@dataclass(frozen=True)
class Chosen:
    """An attack of a run, with its options."""

    name: str
    attack: Attack[Any]
    options: Options

    def recipe(self) -> dict[str, Json]:
        """What decides its results, whatever it attacks."""
        return self.attack.recipe(self.options) | ATTACKS.code(self.name)

    def covers(self, prompts: Sequence[Prompt]) -> Collection[PromptGroup]:
        """The groups of harmful prompts that it can attack; UserError as its files say."""
        if self.attack.covers is not None:
            return self.attack.covers(self.options, prompts)
        return {prompt.group for prompt in prompts if prompt.kind == "harmful"}


def chosen(specs: Sequence[str], tables: Mapping[str, Mapping[str, Any]]) -> tuple[Chosen, ...]:
    """The attacks that a run names.

    Args:
        specs: ``NAME`` or ``NAME=SOURCE``.
        tables: options of each attack, by its name.

    Raises:
        UserError: for an unknown attack or option, one that is named twice, and a source where an
            attack takes none.
    """
    found: dict[str, Chosen] = {}
    for name in tables:
        ATTACKS.place(name)
    for spec in specs:
        name, given, source = spec.partition("=")
        name = name.strip()
        attack, options = ATTACKS.get(name), dict(tables.get(name, {}))
        if given and not attack.source:
            raise UserError(f"attack {name!r} takes no source; write {name} alone")
        if given:
            options[attack.source] = source.strip()
        if name in found:
            raise UserError(f"attack {name!r} is named twice; name it once")
        found[name] = Chosen(name, attack, attack.parse(options))
    return tuple(found.values())


def refuse_guarded(attacks: Sequence[Chosen], guards: Sequence[str]) -> None:
    """Raises UserError for attacks that hand over embeddings where guards are to read prompts."""
    blind = ", ".join(each.name for each in attacks if each.attack.embeds)
    if blind and guards:
        raise UserError(
            f"{blind}: hands embeddings to the pipeline, which no guard ({', '.join(guards)}) can "
            "read; measure it in a run without guards"
        )


def refuse_scale(attacks: Sequence[Chosen], scale: Scale) -> None:
    """Raises UserError, all at once, for options that the run's score of adherence cannot meet."""
    problems: list[str] = []
    for each in attacks:
        try:
            each.attack.fits(each.options, scale)
        except UserError as error:
            problems += error.problems
    refuse_all(problems)
