"""leaderboard.json: stable bytes, read back exactly, nothing else read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from boards import MODELS, broken, card

from spqr_checks.errors import UserError
from spqr_checks.scoring.leaderboard.board import Entry
from spqr_checks.scoring.leaderboard.rank import rank
from spqr_checks.scoring.serialize import board_from_json, board_to_json

BOARD = rank(
    [
        *(Entry(model.name, card(model)) for model in MODELS),
        Entry("broken", broken(MODELS[0])),
        Entry("lost", None, "its run ended with exit code 1"),
    ]
)
TEXT = board_to_json(BOARD)


def test_equal_leaderboards_give_equal_bytes() -> None:
    again = rank(
        [
            Entry("lost", None, "its run ended with exit code 1"),
            Entry("broken", broken(MODELS[0])),
            *(Entry(model.name, card(model)) for model in reversed(MODELS)),
        ]
    )
    assert board_to_json(again) == TEXT
    assert TEXT.isascii()
    assert TEXT.endswith("}\n")


def test_what_is_written_is_read_back() -> None:
    back = board_from_json(TEXT)
    assert board_to_json(back) == TEXT
    assert [(r.name, r.ranks, r.place) for r in back.rows] == [
        (r.name, r.ranks, r.place) for r in BOARD.rows
    ]
    assert back.comparisons[0].decided == BOARD.comparisons[0].decided
    assert back.settings == BOARD.settings


def test_settings_are_not_rounded() -> None:
    assert json.loads(TEXT)["settings"]["profile"]["lite"]["learning_rate"] == 1e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version 2 cannot be read"),
        ({"kind": "other"}, "kind"),
        ({"more": 1}, "unknown field 'more'"),
        ({"rows": [{}]}, r"'rows\[0\]\.name' is missing"),
        ({"level": "high"}, "level"),
        ({"comparisons": [{"above": 1}]}, "above"),
    ],
)
def test_other_documents_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        board_from_json(json.dumps(json.loads(TEXT) | change))


@pytest.mark.parametrize("field", ["ranks", "place", "axes", "spqr"])
def test_a_row_of_another_shape_is_refused(field: str) -> None:
    document = json.loads(TEXT)
    document["rows"][0][field] = [1.5]
    with pytest.raises(UserError, match="not a leaderboard"):
        board_from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": NaN}'])
def test_what_is_no_leaderboard_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        board_from_json(text)
