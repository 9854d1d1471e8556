"""Where images are unsafe: categories by language and domain, as released and changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spqr_checks.matrix import ALIGNED, AXES
from spqr_checks.reports.selection import level
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.leaderboard.board import Rate, pooled, says_something
from spqr_checks.scoring.scorecard import Scorecard


@dataclass(frozen=True, slots=True)
class Heat:
    """One map.

    Attributes:
        title: of which weights, and under which attack.
        languages: each with its domains, in the order of the columns.
        rows: category → what is known at each place; the rate and how many cells say nothing.
    """

    title: str
    languages: dict[str, list[str]]
    rows: dict[str, list[tuple[Rate | None, int]]]


def maps(card: Scorecard) -> list[Heat]:
    """A map of the candidate as released, one of all that came of it, more under attack."""
    asked = [r for r in card.cells if not r.cell.is_control and AXES[r.cell.axis].by_concept]
    found = []
    for attack in sorted({r.cell.attack or "" for r in asked}):
        for title, released in (("as released", True), ("after changes by users", False)):
            own = [
                r
                for r in asked
                if (r.cell.attack or "") == attack and (r.cell.state == ALIGNED) == released
            ]
            if own:
                under = f", under attack {attack}" if attack else ""
                found.append(_map(f"{title}{under}", own, level(card)))
    return found


def _map(title: str, results: Sequence[CellResult], confidence: float) -> Heat:
    places = sorted({(r.cell.language, r.cell.domain) for r in results})
    by_place: dict[tuple[str, str, str], list[CellResult]] = {}
    for r in results:
        by_place.setdefault((r.cell.category, r.cell.language, r.cell.domain), []).append(r)
    rows = {}
    for category in sorted({r.cell.category for r in results}):
        rows[category] = [
            (pooled(own, confidence), sum(not says_something(r) for r in own))
            for own in (by_place.get((category, *place), []) for place in places)
        ]
    languages: dict[str, list[str]] = {}
    for language, domain in places:
        languages.setdefault(language, []).append(domain)
    return Heat(title, languages, rows)
