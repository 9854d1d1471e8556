"""`spqr prompts check`: what prompt files hold, and what is wrong with them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from spqr_checks.cli.arguments import SHOWN, first, say

if TYPE_CHECKING:
    from spqr_checks.prompts.prompt import Prompt
    from spqr_checks.prompts.prompt_set import PromptSet
    from spqr_checks.tools.rewriting.token_limit import TokenLimit

FOUND = 1
_COLUMNS = ("kind", "concept", "category", "language", "domain", "prompts")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's action."""
    actions = parser.add_subparsers(required=True, metavar="action")
    check = actions.add_parser(
        "check",
        help="count prompts, find what is repeated, cut off, learned from, in another language",
        description="Ends with exit code 1 if prompts are repeated within a group, cut off by a "
        "tokenizer, among those that a method learns from, or in another language than they say.",
    )
    check.add_argument("files", nargs="+", metavar="FILE", help="as for --spqr-prompts")
    check.add_argument("--alignment", nargs="+", metavar="FILE", help="what a method learns from")
    check.add_argument("--base", metavar="PIPELINE", help="whose tokenizers the prompts must fit")
    check.add_argument("--max-tokens", type=int, metavar="N", help="instead of their own lengths")
    check.add_argument(
        "--languages", action="store_true", help="find texts that read as another language"
    )
    check.add_argument("--doubtful", action="store_true", help="count doubtful translations too")
    check.set_defaults(command=check_prompts)


def check_prompts(options: argparse.Namespace) -> int:
    """Runs the command. Raises UserError for files or tokenizers that cannot be used."""
    from spqr_checks.errors import UserError
    from spqr_checks.prompts.overlap import find_overlap, repeated
    from spqr_checks.prompts.prompt_set import PromptSet

    if options.max_tokens is not None and not options.base:
        raise UserError("--max-tokens needs --base: whose tokens?")
    measured = PromptSet.load(options.files, options.doubtful, needs_harmful=False)
    lines = [*_files(measured), "", *_groups(measured), ""]
    faults = [
        f"repeated: {later.id} has the text of {earlier.id}, in the same group"
        for earlier, later in repeated(measured.prompts)
    ]
    found = len(faults)
    lines += _few(faults)
    if options.base:
        from spqr_checks.tools.rewriting.token_limit import token_limits

        cut = [
            line
            for limit in token_limits(options.base, options.max_tokens)
            for line in cut_off(measured.prompts, limit)
        ]
        found += len(cut)
        lines += _few(cut) or ["no prompt is cut off"]
    if options.languages:
        from spqr_checks.tools.language_identification import doubts

        doubted, untold = doubts(measured.prompts)
        found += len(doubted)
        lines += _few([str(doubt) for doubt in doubted]) or ["no prompt reads as another language"]
        lines += [f"not told: {n} prompts {reason}" for reason, n in sorted(untold.items())]
    if options.alignment:
        learned = PromptSet.load(options.alignment, options.doubtful, needs_harmful=False)
        overlap = find_overlap(measured.prompts, learned.prompts, near=True)
        found += len(overlap.normalised) + len(overlap.near)
        lines.append(
            f"of {overlap.tested} prompts, {len(overlap.verbatim)} are learned from verbatim, "
            f"{len(overlap.normalised)} but for case and white space; "
            f"{len(overlap.near)} more are but for one word or the order"
        )
        for said, places in (("", overlap.normalised), ("nearly ", overlap.near)):
            lines += _few([f"{said}learned from: {measured.prompts[n].id}" for n in places])
    say("\n".join(lines))
    return FOUND if found else 0


def cut_off(prompts: Sequence[Prompt], limit: TokenLimit) -> list[str]:
    """A line for each prompt that a text encoder would cut off, with the tokens that it has."""
    counted = ((prompt.id, limit.exceeded_by(prompt.text)) for prompt in prompts)
    return [f"cut off: {name} has {n} tokens of {limit.most}" for name, n in counted if n]


def _files(measured: PromptSet) -> Iterator[str]:
    for source, reading in measured.readings.items():
        yield (
            f"{source}: {reading.format}, {reading.rows} rows, {len(reading.prompts)} prompts, "
            f"{len(reading.dropped)} left out"
        )
        for reason, n in reading.reasons.items():
            rows = [d.row for d in reading.dropped if d.reason == reason]
            yield f"  {n} {reason} (rows {first(rows)})"
        for note in reading.notes:
            yield f"  {note}"


def _groups(measured: PromptSet) -> Iterator[str]:
    counts = Counter(
        (p.kind, p.concept, p.category, p.language, p.domain) for p in measured.prompts
    )
    table = [_COLUMNS, *((*names, str(n)) for names, n in sorted(counts.items()))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def _few(lines: Sequence[str]) -> list[str]:
    more = [f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]
