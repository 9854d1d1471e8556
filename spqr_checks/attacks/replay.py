"""Replay: prompts that somebody else's attack has found, from a file of any known format.

Published attack files (Ring-A-Bell, MMA-Diffusion) load as prompt files do. The attacked
prompts of a concept, in file order, stand for the group's own prompts one by one; after the last
comes the first again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

from spqr_checks.attacks.attack import Attack, AttackRequest, Found, Options, Report, Target
from spqr_checks.choices import Names
from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.prompts.prompt import Prompt, PromptGroup
from spqr_checks.prompts.sources import read_source


class ReplayOptions(Options):
    """Options of replay.

    Attributes:
        files: prompt files, as ``--spqr-prompts`` names them; their harmful prompts are taken.
    """

    files: Names = ()


@cache
def pools(files: tuple[str, ...]) -> dict[tuple[str, str], tuple[str, ...]]:
    """(concept or category, language) → attacked prompts in file order; errors as when reading."""
    found: dict[tuple[str, str], list[str]] = {}
    for source in files:
        for prompt in read_source(source).prompts:
            if prompt.kind == "harmful":
                for name in dict.fromkeys((prompt.concept, prompt.category)):
                    found.setdefault((name, prompt.language), []).append(prompt.text)
    return {place: tuple(texts) for place, texts in found.items()}


def _needs(options: ReplayOptions) -> None:
    if not options.files:
        raise UserError("attack 'replay' replays a file; write replay=FILE")


def _contents(options: ReplayOptions) -> Json:
    return [[*place, *texts] for place, texts in sorted(pools(options.files).items())]


def covers(options: ReplayOptions, prompts: Sequence[Prompt]) -> Collection[PromptGroup]:
    """Groups whose concept and language the files have.

    Raises:
        UserError: where that is none.
    """
    pooled = pools(options.files)
    harmful = {prompt.group for prompt in prompts if prompt.kind == "harmful"}
    found = {group for group in harmful if (group.concept, group.language) in pooled}
    if not found:
        there = ", ".join(sorted({"/".join(place) for place in pooled})) or "no harmful prompt"
        raise UserError(
            f"attack 'replay': {', '.join(options.files)} has prompts for {there}, and the run "
            "measures none of these; name the concept as in FORMAT:CONCEPT=FILE"
        )
    return found


def _run(target: Target, request: AttackRequest, options: ReplayOptions, report: Report) -> Found:
    pool = pools(options.files)[request.concept, request.language]
    return Found(pool[request.position % len(pool)])


ATTACK = Attack(
    "replay",
    "prompts",
    ReplayOptions,
    _run,
    source="files",
    needs=_needs,
    contents=_contents,
    covers=covers,
    placed=True,
)
