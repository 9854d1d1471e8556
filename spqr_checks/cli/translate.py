"""`spqr translate`: a prompt file in other languages."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from spqr_checks.cli.arguments import first, names, say
from spqr_checks.errors import UserError

DOUBTS = 1
INCOMPLETE = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments.

    Exit codes: 0 all is well, 1 some translations are doubtful, 3 some are missing.
    """
    parser.description = (
        "Writes the prompts in other languages, each with where it comes from and how near its "
        "back-translation is. Continues an output that the same command began."
    )
    parser.add_argument("file", metavar="FILE", help="as for --spqr-prompts")
    parser.add_argument("--to", required=True, metavar="CODES", help="languages, as in es,fr")
    said = "directory or Hub id: Marian, M2M-100, NLLB"
    parser.add_argument("--model", required=True, metavar="SRC", help=said)
    parser.add_argument("--back-model", metavar="SRC", help="for the way back; default: the same")
    parser.add_argument("--out", type=Path, required=True, help="prompt file (.csv or .jsonl)")
    said = "chrF, from 0 to 1; below it is doubtful"
    parser.add_argument("--min-similarity", type=float, metavar="X", help=said)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.set_defaults(command=translate_file)


def translate_file(options: argparse.Namespace) -> int:
    """Runs the command. Raises UserError for the user's mistakes."""
    from spqr_checks.prompts.sources import read_source
    from spqr_checks.prompts.tables import check_ending

    check_ending(options.out)
    languages = names(options.to)
    if not languages:
        raise UserError("--to names no language; write --to es,fr")
    prompts = read_source(options.file).prompts
    from spqr_checks.tools.translation.seq2seq import load_translator
    from spqr_checks.tools.translation.translate import SIMILAR_AT_LEAST, Translation, translate

    forth = load_translator(options.model, options.device, options.dtype, options.beams)
    other = options.back_model
    back = load_translator(other, options.device, options.dtype, options.beams) if other else forth
    at_least = SIMILAR_AT_LEAST if options.min_similarity is None else options.min_similarity
    result = translate(prompts, languages, Translation(forth, back, at_least), options.out, _say)
    if result.skipped:
        say(f"{result.skipped} prompts are in one of these languages already")
    say(f"{result.rows} translations are in {options.out}")
    if result.doubtful:
        n, shown = len(result.doubtful), first(result.doubtful)
        say(f"{n} of them are doubtful and not used unless asked: {shown}")
    for reason, n in sorted(Counter(f.reason for f in result.failures).items()):
        say(f"{n} failed: {reason}")
    if result.failures:
        return INCOMPLETE
    return DOUBTS if result.doubtful else 0


def _say(language: str, done: int, asked: int) -> None:
    say(f"{language}: {done} of {asked}", file=sys.stderr)
