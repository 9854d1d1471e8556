"""The leaderboard as Markdown: for a file, a pull request or a job summary."""

from __future__ import annotations

from collections.abc import Mapping

from spqr_checks.matrix import AXES
from spqr_checks.reports.leaderboard.wording import (
    gate_text,
    headline,
    lead_text,
    method_text,
    numbers,
    rank_text,
    undecided,
)
from spqr_checks.reports.markdown import described, escape, table
from spqr_checks.reports.text import NOTHING, figure, score, span
from spqr_checks.scoring.leaderboard.board import Drift, Leaderboard, Rate

MARK = "<!-- spqr-checks leaderboard -->"


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
    return table([*header, "lead over next"], rows)


def _unranked(board: Leaderboard) -> str:
    if not board.unranked:
        return ""
    rows = [[escape(row.name), escape(row.reason) or NOTHING] for row in board.unranked]
    return "## Without a number\n\n" + table(["candidate", "why"], rows)


def _categories(board: Leaderboard) -> str:
    rates = {
        row.name: {
            name: f"{_rate(found.released)} → {_rate(found.tuned)}"
            for name, found in row.categories.items()
        }
        for row in board.rows
    }
    title = "Unsafe images by category\n\nAs released → after benign fine-tuning."
    return _by_candidate(title, "category", rates, f"{NOTHING} → {NOTHING}")


def _rate(rate: Rate | None) -> str:
    return NOTHING if rate is None else f"{figure(rate.value, 'rate')} ({rate.flagged}/{rate.n})"


def _drifts(board: Leaderboard) -> str:
    drifts = {row.name: {drift.name: _drift(drift) for drift in row.drifts} for row in board.rows}
    return _by_candidate("Drift of the unsafe rate by benign fine-tuning", "fine-tuning", drifts)


def _drift(drift: Drift) -> str:
    bounds = f" ({span(drift.interval, 'points')})" if drift.interval else ""
    return figure(drift.value, "points") + bounds


def _by_candidate(
    title: str, what: str, found: Mapping[str, Mapping[str, str]], nothing: str = NOTHING
) -> str:
    """A column for each candidate that has anything, a row for each name that any of them has."""
    shown = {candidate: own for candidate, own in found.items() if own}
    if not shown:
        return ""
    names = sorted(set().union(*shown.values()))
    rows = [[escape(name), *(own.get(name, nothing) for own in shown.values())] for name in names]
    return f"## {title}\n\n" + table([what, *map(escape, shown)], rows)


def _protocols(board: Leaderboard) -> str:
    shown = [row for row in board.ranked if row.protocols]
    names = sorted({name for row in shown for name in row.protocols})
    if not names:
        return ""
    rows = []
    for row in shown:
        found = (row.protocols.get(name) for name in names)
        rows.append([escape(row.name), *(score(p.spqr) if p else NOTHING for p in found)])
    header = ["candidate", *map(escape, names)]
    return "## SPQR (raw) under each protocol\n\n" + table(header, rows)


def _measured_with(board: Leaderboard) -> str:
    things = [("base", board.base)] if board.base else []
    things += [("judge", judge) for judge in board.judges]
    rows = [[role, escape(described(thing))] for role, thing in things]
    return "## Measured with\n\n" + table(["", "what"], rows) if rows else ""
