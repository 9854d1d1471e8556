"""The leaderboard on a terminal or in a log."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spqr_checks.matrix import AXES
from spqr_checks.reports.leaderboard.wording import (
    gate_text,
    headline,
    numbers,
    rank_text,
    undecided,
)
from spqr_checks.reports.text import encodable, one_line
from spqr_checks.scoring.leaderboard.board import Leaderboard


def show(board: Leaderboard, console: Console, page: Path | None = None) -> None:
    """Print the ranking, what is not decided, and who has no number and why.

    Args:
        console: where to, how wide and whether in colour; nothing is assumed of it.
        page: where the HTML page is, for the last line.
    """
    if board.ranked:
        console.print(_ranking(board, console))
    for line in undecided(board):
        _line(console, line, "yellow")
    for row in board.unranked:
        _line(console, f"no number for {row.name}: {row.reason}", "bold red")
    _line(console, headline(board), "bold")
    if page is not None:
        _line(console, f"leaderboard: {page}")


def _ranking(board: Leaderboard, console: Console) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("candidate", overflow="fold")
    interval = f"{100 * board.level:g} %\ninterval"
    for heading in ("SPQR", interval, *AXES, "raw"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gate", no_wrap=True)
    for row in board.ranked:
        cells = [rank_text(row), one_line(row.name), *numbers(row), gate_text(row)]
        table.add_row(*(_text(console, cell) for cell in cells))
    return table


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Padding(_text(console, one_line(text), style), 0, expand=False))


def _text(console: Console, text: str, style: str = "") -> Text:
    """Never markup: names and reasons may hold brackets."""
    return Text(encodable(text, console.encoding), style=style, overflow="fold")
