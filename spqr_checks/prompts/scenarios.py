"""Scenarios: a benign fine-tuning beside the prompts that it is asked with, as in SPQR's tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import Field

from spqr_checks.choices import Chosen, Frozen, Names
from spqr_checks.prompts.domains import PLAIN


class Scenario(Frozen):
    """What users fine-tune on, and languages and domains of the prompts that stand beside it.

    Attributes:
        data: the fine-tuning set; the scenario's name is its label.
        prompts: more prompt files that it needs.
        wrap: domains into which plain prompts are wrapped for it.
    """

    data: Annotated[str, Field(min_length=1)]
    languages: Chosen = ("en",)
    domains: Chosen = (PLAIN,)
    prompts: Names = ()
    wrap: Names = ()

    def has(self, language: str, domain: str) -> bool:
        """Whether prompts of this language and domain belong to it."""
        return language in self.languages and domain in self.domains


def joined(scenarios: Collection[Scenario], prompts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The settings of a run that measures all of them, by field; every name once, in order.

    Args:
        prompts: files of all scenarios.
    """
    named: dict[str, list[tuple[str, ...]]] = {
        "datasets": [(one.data,) for one in scenarios],
        "languages": [one.languages for one in scenarios],
        "domains": [one.domains for one in scenarios],
        "wrap": [one.wrap for one in scenarios],
        "prompts": [tuple(prompts), *(one.prompts for one in scenarios)],
    }
    return {
        field: tuple(dict.fromkeys(name for names in lists for name in names))
        for field, lists in named.items()
    }


def outside(scenarios: Mapping[str, Scenario], given: Collection[str]) -> Iterator[tuple[str, str]]:
    """Settings that must not be given beside scenarios, or scenarios that are missing; why."""
    if not scenarios:
        yield (
            "matrix",
            "matrix = 'paper' has no scenario to measure: write tables such as "
            "[tool.spqr.scenario.artistic] with data, languages and domains",
        )
    for field in sorted({"datasets", "languages", "domains", "wrap"}.intersection(given)):
        yield field, f"{field} are the scenarios' own with matrix = 'paper'; leave it out"
