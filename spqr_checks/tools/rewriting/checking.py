"""Checks the pairs of a file that is already there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spqr_checks.prompts.formats.coprov2 import is_coprov2_row, read_train
from spqr_checks.prompts.pair import PromptPair
from spqr_checks.prompts.pair_files import pairs_of
from spqr_checks.prompts.rows import read_rows
from spqr_checks.prompts.text import normalised
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.validators import Checks, Fault, Validator


def read_any_pairs(path: Path) -> Sequence[PromptPair]:
    """The pairs of a pair file or of CoProV2's training file; raises UserError as these do."""
    rows = read_rows(path)
    return read_train(path).pairs if is_coprov2_row(rows[0][1]) else pairs_of(path, rows)


def check_file(
    path: Path, concepts: Sequence[Concept], validators: Sequence[Validator]
) -> tuple[int, list[tuple[PromptPair, Fault]]]:
    """Holds every pair of a file against the validators and against the pairs before it.

    Args:
        concepts: where a pair's concept is among them, its aliases count too. Where a pair has no
            concept, its category is looked for instead.

    Returns:
        number of pairs, and those with a fault.

    Raises:
        UserError: if the file cannot be read.
    """
    known = {normalised(concept.name): concept for concept in concepts}
    checks = Checks(validators)
    pairs = read_any_pairs(path)
    found = []
    for pair in pairs:
        name = pair.concept or pair.category
        concept = known.get(normalised(name), Concept(name, pair.category))
        fault = checks.fault(concept, pair.unsafe, pair.safe)
        if fault is not None:
            found.append((pair, fault))
        checks.accepted([(pair.unsafe, pair.safe)])
    return len(pairs), found
