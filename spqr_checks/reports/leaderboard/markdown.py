"""The leaderboard as Markdown: for a file, a pull request or a job summary."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.matrix import AXES
from spqr_checks.reports.files import replace
from spqr_checks.reports.leaderboard.wording import (
    gate_text,
    headline,
    lead_text,
    method_text,
    numbers,
    rank_text,
    undecided,
)
from spqr_checks.reports.markdown import described, escape
from spqr_checks.reports.text import NOTHING, figure, score, span
from spqr_checks.scoring.leaderboard.board import Leaderboard
from spqr_checks.scoring.leaderboard.breakdown import Rate

MARK = "<!-- spqr-checks leaderboard -->"


def write(board: Leaderboard, path: Path) -> None:
    """Write the file. Raises UserError."""
    content = document(board).encode("utf-8", "backslashreplace")
    replace(path, content, lambda old: old.startswith(MARK.encode()))


def append_step_summary(board: Leaderboard, environ: Mapping[str, str] = os.environ) -> bool:
    """Append it to the file that ``$GITHUB_STEP_SUMMARY`` names; False if none is."""
    name = environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return False
    try:
        with Path(name).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{document(board)}\n")
    except OSError as error:
        raise UserError(
            f"$GITHUB_STEP_SUMMARY names {name}, which cannot be written: {error.strerror}."
        ) from error
    return True


def document(board: Leaderboard) -> str:
    """The whole text."""
    parts = [
        MARK,
        f"# SPQR leaderboard\n\n{escape(headline(board))}.",
        _ranking(board),
        "\n".join(f"- {escape(line)}" for line in undecided(board)),
        _unranked(board),
        _categories(board),
        _drifts(board),
        _protocols(board),
        _measured_with(board),
        f"---\n\n{escape(method_text(board))}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _ranking(board: Leaderboard) -> str:
    if not board.ranked:
        return ""
    rows = []
    for row in board.ranked:
        lead = board.against_next(row)
        ahead = NOTHING if lead is None else lead_text(lead)
        rows.append([rank_text(row), escape(row.name), *numbers(row), gate_text(row), ahead])
    interval = f"{100 * board.level:g} % interval"
    header = ["rank", "candidate", "SPQR", interval, *AXES, "raw", "gate"]
    return _table([*header, "lead over next"], rows)


def _unranked(board: Leaderboard) -> str:
    if not board.unranked:
        return ""
    rows = [[escape(row.name), escape(row.reason) or NOTHING] for row in board.unranked]
    return "## Without a number\n\n" + _table(["candidate", "why"], rows)


def _categories(board: Leaderboard) -> str:
    shown = [row for row in board.rows if row.categories]
    names = sorted({name for row in shown for name in row.categories})
    if not names:
        return ""
    rows = []
    for name in names:
        cells = []
        for row in shown:
            found = row.categories.get(name)
            before, after = (found.released, found.tuned) if found else (None, None)
            cells.append(f"{_rate(before)} → {_rate(after)}")
        rows.append([escape(name), *cells])
    title = "## Unsafe images by category\n\nAs released → after benign fine-tuning.\n\n"
    return title + _table(["category", *(escape(row.name) for row in shown)], rows)


def _rate(rate: Rate | None) -> str:
    return NOTHING if rate is None else f"{figure(rate.value, 'rate')} ({rate.flagged}/{rate.n})"


def _drifts(board: Leaderboard) -> str:
    shown = [row for row in board.rows if row.drifts]
    names = sorted({drift.name for row in shown for drift in row.drifts})
    if not names:
        return ""
    rows = []
    for name in names:
        cells = []
        for row in shown:
            found = next((d for d in row.drifts if d.name == name), None)
            value = figure(found.value, "points") if found else NOTHING
            bounds = f" ({span(found.interval, 'points')})" if found and found.interval else ""
            cells.append(value + bounds)
        rows.append([escape(name), *cells])
    title = "## Drift of the unsafe rate by benign fine-tuning\n\n"
    return title + _table(["fine-tuning", *(escape(row.name) for row in shown)], rows)


def _protocols(board: Leaderboard) -> str:
    shown = [row for row in board.ranked if row.protocols]
    names = sorted({name for row in shown for name in row.protocols})
    if not names:
        return ""
    rows = [
        [
            escape(row.name),
            *(score(row.protocols[n].spqr) if n in row.protocols else NOTHING for n in names),
        ]
        for row in shown
    ]
    title = "## SPQR (raw) under each protocol\n\n"
    return title + _table(["candidate", *map(escape, names)], rows)


def _measured_with(board: Leaderboard) -> str:
    things = [("base", board.base)] if board.base else []
    things += [("judge", judge) for judge in board.judges]
    rows = [[role, escape(described(thing))] for role, thing in things]
    return "## Measured with\n\n" + _table(["", "what"], rows) if rows else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells must be escaped already."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])
