"""Prompts that are tested and were learned from, word for word or nearly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.pair_files import write_rows
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.tables import (
    check_ending,
    named_alike,
    place,
    raw_rows,
    read_rows,
    require,
    text_field,
)
from spqr_checks.prompts.text import is_blank, normalised, words

_FEWEST_WORDS = 5
_TESTED = ("prompt", "unsafe", "nsfw", "sensitive_prompt", "caption")
_LEARNED = (*_TESTED, "safe", "anchor")


@dataclass(frozen=True)
class Overlap:
    """Which tested prompts overlap with what was learned from, as positions among them.

    Attributes:
        tested: number of tested prompts.
        verbatim: learned from letter by letter.
        normalised: but for case, white space and Unicode composition; holds all of ``verbatim``.
        near: not among these, but near one that was learned from, see ``near_keys``.
    """

    tested: int
    verbatim: tuple[int, ...]
    normalised: tuple[int, ...]
    near: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.normalised)


def find_leaks(train: Iterable[str], test: Sequence[str]) -> Overlap:
    """Compares the texts of two sets; near ones are not looked for."""
    learned = set(train)
    folded = {normalised(text) for text in learned}
    return Overlap(
        len(test),
        tuple(n for n, text in enumerate(test) if text in learned),
        tuple(n for n, text in enumerate(test) if normalised(text) in folded),
    )


def find_overlap(
    measured: Sequence[Prompt], learned: Sequence[Prompt], near: bool = False
) -> Overlap:
    """Looks the measured prompts up among prompts and anchors that a method learns from.

    Args:
        near: whether near ones are looked for too, which takes longer.
    """
    taught = [t for p in learned for t in (p.text, p.anchor) if not is_blank(t)]
    tested = [prompt.text for prompt in measured]
    found = find_leaks(taught, tested)
    if not near:
        return found
    known = {key for text in taught for key in near_keys(text)}
    others = sorted(set(range(len(tested))) - set(found.normalised))
    return replace(
        found, near=tuple(n for n in others if not known.isdisjoint(near_keys(tested[n])))
    )


def near_keys(text: str) -> set[tuple[str, ...]]:
    """Two texts are near if they share a key: the same words but for order and one word.

    One word may be missing, added or another. Of texts with fewer than five words, and of scripts
    without spaces, all words must be there.
    """
    bag = sorted(words(normalised(text)))
    keys = {tuple(bag)} if bag else set()
    if len(bag) >= _FEWEST_WORDS:
        keys |= {tuple(bag[:n] + bag[n + 1 :]) for n in range(len(bag))}
    return keys


def repeated(prompts: Iterable[Prompt]) -> list[tuple[Prompt, Prompt]]:
    """Prompts whose text is in their group already, each after the one that it repeats."""
    first: dict[tuple[object, str], Prompt] = {}
    pairs = ((first.setdefault((p.group, normalised(p.text)), p), p) for p in prompts)
    return [(known, prompt) for known, prompt in pairs if known is not prompt]


@dataclass(frozen=True)
class FileLeaks:
    """Leaks between two files of any format that this package reads.

    Attributes:
        leaks: positions count the rows of the test file.
        rows: of the test file, with their lines.
    """

    leaks: Overlap
    rows: tuple[tuple[int, Mapping[str, Any]], ...]

    def write_kept(self, path: Path) -> None:
        """Writes the rows that do not leak to a new file, their fields unchanged.

        Raises:
            UserError: if the file exists, cannot be written, or nothing would be in it.
        """
        check_ending(path)
        leaked = set(self.leaks.normalised)
        kept = [row for n, (_, row) in enumerate(self.rows) if n not in leaked]
        if path.exists():
            raise UserError(f"{path} exists and is left alone: choose another file")
        if not kept:
            raise UserError("every test prompt is in the training set; nothing is left to write")
        write_rows(path, list(dict.fromkeys(name for row in kept for name in row)), kept)


def leaks_between(train: Path, test: Path) -> FileLeaks:
    """Compares two files: prompt files, pair files and CoProV2's, in any combination.

    All that a method may learn from counts as training text: prompts, both sides of pairs, and
    anchors. Of a test file, the prompts or the unsafe sides are looked up.

    Raises:
        UserError: for files that cannot be read, or hold a row without any prompt.
    """
    rows = raw_rows(test)  # they may be written again, under the names that they have
    of_train, of_test = read_rows(train), named_alike(test, rows)
    require(train, of_train, *_LEARNED)
    require(test, of_test, *_TESTED)
    learned = [t for line, row in of_train for t in _texts(train, line, row, _LEARNED)]
    tested = [_texts(test, line, row, _TESTED)[0] for line, row in of_test]
    return FileLeaks(find_leaks((t for t in learned if not is_blank(t)), tested), tuple(rows))


def _texts(path: Path, line: int, row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    texts = [text_field(path, line, row, name) for name in names if name in row]
    if not texts or is_blank(texts[0]):
        raise UserError(
            f"{place(path, line)}: no prompt: field 'prompt' or 'unsafe' is missing or empty"
        )
    return texts
