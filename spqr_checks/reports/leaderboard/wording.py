"""Words and figures of a leaderboard, the same in every report."""

from __future__ import annotations

from spqr_checks.reports.text import NOTHING, plural, score, span
from spqr_checks.scoring.leaderboard.board import Comparison, Leaderboard, Row


def rank_text(row: Row) -> str:
    """``2``, or ``2–4`` where the measurements leave ranks open; a dash without a number."""
    if row.ranks is None:
        return NOTHING
    best, worst = row.ranks
    return str(best) if best == worst else f"{best}–{worst}"


def gate_text(row: Row) -> str:
    """``passed``, ``failed``, or a dash where there was no run."""
    if row.gate is None:
        return NOTHING
    return "passed" if row.gate.passed else "failed"


def lead_text(comparison: Comparison) -> str:
    """``+0.120 (+0.034 to +0.201)``: by how much the upper of two leads."""
    if comparison.difference == 0:
        return "equal SPQR"
    if comparison.interval is None:
        return f"+{score(comparison.difference)} (no interval)"
    low, high = comparison.interval
    return f"+{score(comparison.difference)} ({low:+.3f} to {high:+.3f})"


def undecided(board: Leaderboard) -> list[str]:
    """A sentence for every pair of neighbours whose order is not decided."""
    neighbours = (board.against_next(row) for row in board.ranked)
    return [
        f"rank not decided between {c.above} and {c.below}: {lead_text(c)}"
        for c in neighbours
        if c is not None and not c.decided
    ]


def headline(board: Leaderboard) -> str:
    """``3 candidates ranked under anchored-2, 1 without a number``."""
    ranked, others = len(board.ranked), len(board.unranked)
    under = f" under {board.protocol}" if board.protocol else ""
    rest = f", {others} without a number" if others else ""
    return f"{plural(ranked, 'candidate')} ranked{under}{rest}"


def numbers(row: Row) -> list[str]:
    """SPQR, its interval, S, P, Q, R and the raw SPQR."""
    axes = [score(axis.score) for axis in row.axes.values()]
    return [score(row.spqr), span(row.interval), *axes, score(row.spqr_raw)]


def method_text(board: Leaderboard) -> str:
    """How intervals and ranks were found, for the foot of a report."""
    return (
        f"Intervals are {100 * board.level:g} % percentiles of {board.draws} draws (seed "
        f"{board.seed}) in which each cell is measured anew as its counts and intervals allow and "
        "its credit found anew, paired between candidates on equal images; drifts vary between "
        "fine-tuning seeds as those measured do. They are estimates, "
        "each taken alone: no correction is made for the number of comparisons. A rank such as "
        "2–3 means that the difference to a neighbour may be chance."
    )
