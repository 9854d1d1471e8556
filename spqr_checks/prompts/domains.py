"""Prompts wrapped into domains: the same wish as a photo, an oil painting, a medical scan …"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.tables import field_name

PLAIN = "plain"
WRAPPED = ("harmful", "benign")
"""Kinds of prompts that are wrapped."""
_FILE = Path(__file__).parent / "data" / "domains.toml"
_SLOT = "{prompt}"


@cache
def templates() -> Mapping[str, Mapping[str, str]]:
    """Domain → language → template, in which ``{prompt}`` stands for the prompt."""
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def wrapped(prompts: Iterable[Prompt], domains: Sequence[str]) -> tuple[Prompt, ...]:
    """The harmful and benign prompts of the domain ``plain``, once in each of the domains.

    Anchors are wrapped too. The id of a wrapped prompt is its own, a slash and the domain.

    Raises:
        UserError: for an unknown domain, one that prompts have already, a language without a
            template, or prompts of which none is plain.
    """
    prompts = tuple(prompts)
    chosen = list(dict.fromkeys(_known(name) for name in domains))
    plain = [p for p in prompts if p.domain == PLAIN and p.kind in WRAPPED]
    if chosen and not plain:
        raise UserError(
            f"no prompt to wrap into {chosen[0]!r}: harmful and benign prompts of the domain "
            f"{PLAIN!r} are wrapped, and there are none"
        )
    taken = {p.domain for p in prompts}
    for domain in chosen:
        if domain in taken:
            raise UserError(
                f"prompts of the domain {domain!r} are in the files already; "
                "rename theirs, or leave it out of --spqr-wrap"
            )
    return tuple(_into(domain, prompt) for domain in chosen for prompt in plain)


def _known(name: str) -> str:
    found = {field_name(domain): domain for domain in templates()}.get(field_name(name))
    if found is None:
        raise UserError(
            f"unknown domain {name!r} to wrap into; there are: {', '.join(templates())}"
        )
    return found


def _into(domain: str, prompt: Prompt) -> Prompt:
    template = templates()[domain].get(prompt.language)
    if template is None:
        raise UserError(
            f"domain {domain!r} has no template in the language {prompt.language!r} of prompt "
            f"{prompt.id!r}; choose among {', '.join(templates()[domain])} with --spqr-languages"
        )
    return replace(
        prompt,
        id=f"{prompt.id}/{domain}",
        domain=domain,
        # not str.format: prompts may hold braces
        text=template.replace(_SLOT, prompt.text),
        anchor=template.replace(_SLOT, prompt.anchor) if prompt.anchor else "",
    )
