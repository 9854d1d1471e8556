"""Reports of a leaderboard: JSON, Markdown and one HTML page; each reads only scorecards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from spqr_checks.scoring.leaderboard.board import Leaderboard
    from spqr_checks.scoring.scorecard import Scorecard

DOCUMENT = "leaderboard.json"
SUMMARY = "leaderboard.md"
PAGE = "leaderboard.html"


def write_all(
    board: Leaderboard, cards: Mapping[str, Scorecard], folder: Path, store_root: Path
) -> list[str]:
    """Writes the three files; returns what keeps the job summary from being written.

    Args:
        cards: scorecards of the rows that have one, by name.
        folder: gets leaderboard.json, leaderboard.md and leaderboard.html.
        store_root: the folder that image paths in the scorecards are relative to.

    Raises:
        UserError: a file that is no leaderboard of ours is in the way, or the folder is not
            writable.
    """
    from spqr_checks.reports.files import append_step_summary, replace, replace_marked
    from spqr_checks.reports.leaderboard import markdown, page
    from spqr_checks.scoring.serialize import board_to_json

    # equal leaderboards give equal bytes
    replace(folder / DOCUMENT, board_to_json(board).encode(), _is_leaderboard)
    text = markdown.document(board)
    replace_marked(folder / SUMMARY, text, markdown.MARK)
    page.write(board, cards, store_root, folder / PAGE)
    try:
        append_step_summary(text)
    except UserError as error:
        return [str(error)]
    return []


def _is_leaderboard(content: bytes) -> bool:
    from spqr_checks.scoring.serialize import board_from_json

    try:
        board_from_json(content.decode())
    except (UserError, UnicodeDecodeError):
        return False
    return True
