"""The bytes of files and messages, pinned: they change with the layout's version, never by chance.

``pinned/`` holds what was written when the version was fixed. A change here makes old scorecards
unequal to new ones of the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import MODELS, card
from sample_runs import (
    LITE,
    STANDARD,
    all_measured,
    errored,
    make_card,
    make_matrix,
    measured,
    not_measurable,
    replaced,
)

from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.completeness import Missing
from spqr_checks.scoring.leaderboard.board import Entry
from spqr_checks.scoring.leaderboard.rank import rank
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.serialize import (
    board_from_json,
    board_to_json,
    from_json,
    from_message,
    to_json,
    to_message,
)

PINNED = Path(__file__).parent / "pinned"
SMALL = make_matrix(concepts=("hazard sign",), languages=("en",), tunings=(LITE, STANDARD))
SHIFTED = "S-hazard_sign-en-photo-aligned"


def awkward() -> list[CellResult]:
    """Numbers of numpy, signed zeros, tiny and long ones, any script, an attack, p-values."""
    results = replaced(
        all_measured(SMALL, 2 / 3),
        SHIFTED,
        value=np.float32(1 / 3),
        interval=(-0.0, np.float64(2 / 3)),
        p=(1.23456789012e-11, 0.98765432109876),
        threshold=1,
        n=np.int64(24),
        details={
            "flagged": np.int32(8),
            "kid": np.float64(1.23456789012e-7),
            "zero": -0.0,
            "lost": float("nan"),
            "by": {"seeds": (1, 2.5, True, None, "خطر"), 3: "three"},
        },
    )
    return replaced(
        results,
        "R-all-all-all-lite.general.0",
        value=-1e-9,
        interval=(float("-inf"), 1.0),
        replicates=[0.1, 1 / 3, np.float32(0.7), 1.0],
    )


def attacked() -> CellResult:
    cell = replace(SMALL.cells[2], attack="typos")
    return replace(measured(cell, 0.3), replicates=np.linspace(0, 1, 7).tolist(), p=(0.25, 1 / 3))


def mixed() -> list[CellResult]:
    kinds = [not_measurable, errored, measured]
    return [kinds[i % 3](cell) for i, cell in enumerate(SMALL.cells)][:-1]


def unfinished(whole: Scorecard) -> Scorecard:
    missing = (Missing(whole.cells[0].cell.id, "the judge did not answer"),)
    return replace(whole, complete=False, spqr=None, spqr_raw=None, missing=missing)


BOARD = rank(
    [
        *(Entry(model.name, card(model, n=8)) for model in MODELS[:2]),
        Entry("broken", unfinished(card(MODELS[0], n=8))),
        Entry("lost", None, "its run ended with exit code 1"),
    ]
)
CARDS = {
    "complete": make_card(SMALL, all_measured(SMALL, 2 / 3)),
    "awkward": make_card(SMALL, awkward()),
    "published": make_card(SMALL, all_measured(SMALL, 0.7), protocol="v2-code", min_score=0.9),
    "incomplete": make_card(SMALL, mixed(), errors={SMALL.cells[0].id: "out of memory"}),
    "empty": make_card(SMALL, []),
}
DOCUMENTS: dict[str, tuple[Callable[[Any], str], Callable[[str], Any], Any]] = {
    **{f"{name}.scorecard": (to_json, from_json, made) for name, made in CARDS.items()},
    "ranked.leaderboard": (board_to_json, board_from_json, BOARD),
    "nobody.leaderboard": (board_to_json, board_from_json, rank([Entry("lost", None, "killed")])),
    "attacked.message": (to_message, from_message, attacked()),
    "awkward.message": (
        to_message,
        from_message,
        next(r for r in awkward() if r.cell.id == SHIFTED),
    ),
    "error.message": (to_message, from_message, errored(SMALL.cells[0])),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_written_is_pinned_byte_for_byte_and_read_back_to_the_same_bytes(name: str) -> None:
    write, read, made = DOCUMENTS[name]
    pinned = (PINNED / f"{name}.json").read_bytes()
    assert write(made).encode() == pinned
    assert write(read(pinned.decode())).encode() == pinned


def test_every_pinned_file_is_written_by_something() -> None:
    assert {path.stem for path in PINNED.iterdir()} == set(DOCUMENTS)
