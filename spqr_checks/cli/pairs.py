"""`spqr pairs`: build, check and compare files of paired prompts."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.cli.arguments import SHOWN, first, say
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from spqr_checks.tools.rewriting.concept import Concept
    from spqr_checks.tools.rewriting.rewriter import Rewriter
    from spqr_checks.tools.rewriting.slot_table import SlotTable
    from spqr_checks.tools.rewriting.validators import Validator

FOUND = 1
INCOMPLETE = 3


def _miniature() -> Mapping[str, Any]:
    from spqr_checks.miniature.prompt_sets import slot_table

    return slot_table()


TABLES: Mapping[str, Callable[[], Mapping[str, Any]]] = {"miniature": _miniature}
"""Slot tables (see `slot_table`) that ``--table`` knows by name."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's actions.

    Exit codes: 0 all is well, 1 faults or leaks were found, 3 some pairs that were asked for are
    missing.
    """
    actions = parser.add_subparsers(required=True, metavar="action")

    build = actions.add_parser("build", help="write pairs for concepts, or continue a file")
    build.add_argument("--out", type=Path, required=True, help="pair file (.csv or .jsonl)")
    build.add_argument("--concepts", type=Path, help="TOML: category → concepts")
    build.add_argument("--count", type=int, default=20, help="pairs per concept")
    build.add_argument("--seed", type=int, default=0)
    writer = build.add_mutually_exclusive_group(required=True)
    known = ", ".join(sorted(TABLES))
    writer.add_argument("--table", help=f"slot table (TOML), or {known}")
    writer.add_argument("--model", help="chat model: directory or Hub id")
    build.add_argument("--language", default="English", help="that the chat model writes in")
    build.add_argument("--retries", type=int, default=2, help="after an unreadable answer")
    build.add_argument("--temperature", type=float, default=0.7, help="0: always the likeliest")
    build.add_argument("--top-p", type=float, default=1.0)
    build.add_argument("--max-new-tokens", type=int, default=160)
    build.add_argument("--dtype", default="auto")
    _add_validators(build)
    build.set_defaults(command=_build)

    check = actions.add_parser("check", help="check the pairs of a file")
    check.add_argument("file", type=Path, help="pair file, or CoProV2's training CSV")
    check.add_argument("--concepts", type=Path, help="TOML: names that no safe prompt may hold")
    _add_validators(check)
    check.set_defaults(command=_check)

    leaks = actions.add_parser("leaks", help="find test prompts that are in the training data")
    leaks.add_argument("train", type=Path)
    leaks.add_argument("test", type=Path)
    leaks.add_argument("--out", type=Path, help="write the test rows that do not leak")
    leaks.set_defaults(command=_leaks)


def _add_validators(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clip", help="CLIP for similarity; without it, words in common")
    parser.add_argument("--min-similarity", type=float)
    parser.add_argument("--tokenizer", help="pipeline or text model that the prompts must fit")
    parser.add_argument("--max-tokens", type=int, help="instead of the tokenizer's own length")
    parser.add_argument("--device", default="cpu")


def _build(options: argparse.Namespace) -> int:
    from spqr_checks.prompts.tables import check_ending
    from spqr_checks.tools.report import report_path
    from spqr_checks.tools.rewriting.build import build
    from spqr_checks.tools.rewriting.validators import Checks

    check_ending(options.out)
    table = _table(options)
    concepts = _concepts(options, table)
    checks = Checks(_validators(options, concepts))
    rewriter = _rewriter(options, table)

    def progress(concept: Concept, accepted: int, asked: int) -> None:
        say(f"{concept.name}: {accepted} of {asked}", file=sys.stderr)

    built = build(concepts, options.count, rewriter, checks, options.out, progress)
    if not options.tokenizer:
        say("token length: not checked (no --tokenizer)", file=sys.stderr)
    asked = len(concepts) * options.count
    say(f"{asked - len(built.failures)} of {asked} pairs are in {options.out}")
    for reason, n in sorted(Counter(f.reason for f in built.failures).items()):
        say(f"{n} failed: {reason}")
    if built.failures:
        say(f"which, and why: {report_path(options.out)}")
    return INCOMPLETE if built.failures else 0


def _table(options: argparse.Namespace) -> SlotTable | None:
    from spqr_checks.tools.rewriting.slot_table import SlotTable

    if options.table is None:
        return None
    if known := TABLES.get(options.table):
        return SlotTable.parse(known(), options.table)
    return SlotTable.read(Path(options.table))


def _concepts(options: argparse.Namespace, table: SlotTable | None) -> Sequence[Concept]:
    from spqr_checks.tools.rewriting.concept import read_concepts

    if options.concepts is not None:
        return read_concepts(options.concepts)
    if table is not None:
        return table.listed_concepts()
    raise UserError("a chat model needs --concepts FILE: what is it to write about?")


def _rewriter(options: argparse.Namespace, table: SlotTable | None) -> Rewriter:
    if table is not None:
        from spqr_checks.tools.rewriting.template import TemplateRewriter

        return TemplateRewriter(table, options.seed)
    if options.retries < 0:
        raise UserError(f"--retries is {options.retries}; it must be 0 or more")
    from spqr_checks.tools.rewriting.chat_model import load_chat
    from spqr_checks.tools.rewriting.llm import LanguageModelRewriter

    sampled = (options.max_new_tokens, options.temperature, options.top_p)
    chat = load_chat(options.model, options.device, options.dtype, *sampled)
    return LanguageModelRewriter(chat, options.retries, options.seed, options.language)


def _validators(options: argparse.Namespace, concepts: Sequence[Concept]) -> list[Validator]:
    from spqr_checks.tools.rewriting.validators import ConceptAbsent, FitsTokenizers, Near, NotEmpty
    from spqr_checks.tools.similarity import clip_cosine, word_overlap

    near = (
        clip_cosine(options.clip, options.min_similarity, options.device)
        if options.clip
        else word_overlap(options.min_similarity)
    )
    validators: list[Validator] = [NotEmpty(), ConceptAbsent(concepts), Near(near)]
    if options.tokenizer:
        from spqr_checks.tools.rewriting.token_limit import token_limits

        validators.append(FitsTokenizers(token_limits(options.tokenizer, options.max_tokens)))
    elif options.max_tokens is not None:
        raise UserError("--max-tokens needs --tokenizer: whose tokens?")
    return validators


def _check(options: argparse.Namespace) -> int:
    from spqr_checks.tools.rewriting.concept import read_concepts
    from spqr_checks.tools.rewriting.validators import check_file

    concepts = read_concepts(options.concepts) if options.concepts else ()
    n, found = check_file(options.file, concepts, _validators(options, concepts))
    for pair, fault in found[:SHOWN]:
        say(f"{pair.id}: {fault.reason}: {fault.detail}")
    if len(found) > SHOWN:
        say("…")
    for reason, times in sorted(Counter(fault.reason for _, fault in found).items()):
        say(f"{times} pairs: {reason}")
    say(f"{n - len(found)} of {n} pairs are without fault")
    return FOUND if found else 0


def _leaks(options: argparse.Namespace) -> int:
    from spqr_checks.prompts.overlap import leaks_between

    found = leaks_between(options.train, options.test)
    leaks = found.leaks
    say(f"{len(leaks.verbatim)} of {leaks.tested} test prompts are in the training data verbatim")
    say(f"{len(leaks.normalised)} but for case and white space")
    if leaks.normalised:
        say(f"lines {first([found.rows[n][0] for n in leaks.normalised])}")
    if options.out is not None:
        found.write_kept(options.out)
        say(f"{leaks.tested - len(leaks.normalised)} test prompts are in {options.out}")
        return 0
    return FOUND if leaks.normalised else 0
