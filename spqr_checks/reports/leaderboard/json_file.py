"""leaderboard.json: the leaderboard with stable bytes."""

from __future__ import annotations

from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.reports.files import replace
from spqr_checks.scoring.board import Leaderboard
from spqr_checks.scoring.serialize import board_from_json, board_to_json


def write(board: Leaderboard, path: Path) -> None:
    """Write the file; equal leaderboards give equal bytes. Raises UserError."""
    replace(path, board_to_json(board).encode(), _is_leaderboard)


def _is_leaderboard(content: bytes) -> bool:
    try:
        board_from_json(content.decode())
    except (UserError, UnicodeDecodeError):
        return False
    return True
