"""CoProV2's own CSV files: paired training prompts, and unsafe test prompts.

Format (github.com/Visualignment/SafetyDPO, ``data/*.csv``; AlignGuard, arXiv 2412.10493): columns
``prompt,image,category``. The image's name carries the pair: ``u_idx_0000012_0.jpg`` and
``s_idx_0000012_0.jpg`` are the unsafe and the safe prompt of pair 12; test images are
``0000012_0.jpg``. Concepts were not published, so that the category stands for the concept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.formats.base import Format
from spqr_checks.prompts.formats.coprov2_rows import TEST_IMAGE, TRAIN_IMAGE, Counts, Entries
from spqr_checks.prompts.formats.reading import Reading, Table
from spqr_checks.prompts.leaks import find_leaks
from spqr_checks.prompts.pair import PromptPair
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.rows import read_rows, text_field
from spqr_checks.prompts.tables import Row, place
from spqr_checks.prompts.text import one_line

NAME = "coprov2"
COLUMNS = frozenset({"prompt", "image", "category"})


@dataclass(frozen=True)
class CoProTrain:
    """The training pairs, in the order of their first rows.

    Attributes:
        further_categories: id → categories beyond ``PromptPair.category``, the first; the
            published file lists 321 pairs under several.
    """

    pairs: tuple[PromptPair, ...]
    counts: Counts
    further_categories: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class UnsafePrompt:
    """One prompt of the test file."""

    id: str
    category: str
    unsafe: str


@dataclass(frozen=True)
class CoProTest:
    """The test prompts, in file order.

    Attributes:
        verbatim, normalised: prompts that are in the training file too, letter by letter and but
            for case and white space; found whether they were dropped or not.
    """

    prompts: tuple[UnsafePrompt, ...]
    counts: Counts
    verbatim: tuple[UnsafePrompt, ...] = ()
    normalised: tuple[UnsafePrompt, ...] = ()


def is_coprov2_row(row: Mapping[str, Any]) -> bool:
    """Whether the fields are those of CoProV2; our own prompt files always have a ``kind``."""
    return row.keys() >= COLUMNS and "kind" not in row


def read_train(path: Path) -> CoProTrain:
    """Reads the paired training file.

    Raises:
        UserError: for a missing twin, rows of one id that contradict each other, an empty prompt,
            an unknown category or a foreign image name; it names the line.
    """
    return _train(path, read_rows(path))[0]


def read_test(path: Path, train: CoProTrain | None = None, drop_leaked: bool = False) -> CoProTest:
    """Reads the test file, and looks its prompts up in the training set if that is given.

    Args:
        train: without it, leaks are not looked for.
        drop_leaked: leave out the prompts that ``normalised`` lists.

    Raises:
        UserError: as ``read_train`` does, twins apart.
        ValueError: if leaks are to be dropped but there is nothing to compare with.
    """
    if drop_leaked and train is None:
        raise ValueError("leaked prompts can only be dropped if the training set is given")
    prompts, entries = _test(path, read_rows(path))
    counts = entries.counts(prompt.category for prompt in prompts)
    learned = [text for p in (train.pairs if train else ()) for text in (p.unsafe, p.safe)]
    leaks = find_leaks(learned, [p.unsafe for p in prompts])
    leaked = set(leaks.normalised) if drop_leaked else set()
    return CoProTest(
        tuple(p for n, p in enumerate(prompts) if n not in leaked),
        counts,
        tuple(prompts[n] for n in leaks.verbatim),
        tuple(prompts[n] for n in leaks.normalised),
    )


def read(table: Table) -> Reading:
    """Either file as prompts: pairs as ``PromptPair.prompts``, test prompts without anchors.

    Raises:
        UserError: as the two readers do.
    """
    path, rows = table.path, table.rows
    if TEST_IMAGE.fullmatch(text_field(path, *rows[0], "image").strip()):
        tested, entries = _test(path, rows)
        prompts = [
            Prompt(p.id, one_line(p.unsafe), "harmful", p.category, p.category) for p in tested
        ]
    else:
        train, entries = _train(path, rows)
        prompts = [prompt for pair in train.pairs for prompt in pair.prompts]
    return Reading(NAME, len(rows), tuple(prompts), tuple(entries.dropped))


def _train(path: Path, rows: Sequence[Row]) -> tuple[CoProTrain, Entries]:
    read = Entries(path, TRAIN_IMAGE)
    read.add(rows)
    pairs: list[PromptPair] = []
    further: dict[str, tuple[str, ...]] = {}
    for number in dict.fromkeys(number for _, number in read.entries):
        unsafe, safe = (read.entries.get((side, number)) for side in "us")
        if unsafe is None or safe is None:
            there, missing = (unsafe, "safe") if unsafe else (safe, "unsafe")
            assert there is not None
            raise UserError(
                f"{place(path, there.line)}: id {number} has no {missing} twin "
                f"({missing[0]}_idx_{number}_0.jpg); add that row or take this one out"
            )
        if unsafe.categories != safe.categories:
            raise UserError(
                f"{place(path, safe.line)}: id {number} is in {', '.join(safe.categories)} but its "
                f"unsafe twin (line {unsafe.line}) in {', '.join(unsafe.categories)}"
            )
        first, *others = unsafe.categories
        try:
            pair = PromptPair(f"{path.stem}:{number}", first, unsafe.prompt, safe.prompt)
        except ValueError as error:
            raise UserError(f"{place(path, safe.line)}: id {number}: {error}") from None
        pairs.append(pair)
        if others:
            further[pair.id] = tuple(others)
    counts = read.counts(pair.category for pair in pairs)
    return CoProTrain(tuple(pairs), counts, further), read


def _test(path: Path, rows: Sequence[Row]) -> tuple[list[UnsafePrompt], Entries]:
    read = Entries(path, TEST_IMAGE)
    read.add(rows)
    prompts = [
        UnsafePrompt(f"{path.stem}:{number}", entry.categories[0], entry.prompt)
        for (_, number), entry in read.entries.items()
    ]
    return prompts, read


FORMAT = Format(NAME, is_coprov2_row, read, order=3)
