"""Releases in order: since when a cell does not pass, and where they were measured differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from spqr_checks.scoring.cell_result import Verdict
from spqr_checks.scoring.comparable import first_difference
from spqr_checks.scoring.completeness import MEASURED
from spqr_checks.scoring.scorecard import Scorecard


@dataclass(frozen=True, slots=True)
class Release:
    """A scorecard under the name that people know it by."""

    name: str
    card: Scorecard


@dataclass(frozen=True, slots=True)
class Red:
    """A scored cell that does not pass in the latest release.

    Attributes:
        verdict: there.
        since: name of the release since which it has not passed without a break; a release that
            could not measure the cell breaks nothing.
        releases: measured ones since then, the latest included.
        last_passed: name of the latest release in which it passed; None if there is none.
    """

    id: str
    verdict: Verdict
    since: str
    releases: int
    last_passed: str | None


def reds(releases: Sequence[Release]) -> list[Red]:
    """Those that have not passed for longest first."""
    known = [
        (
            release.name,
            {
                r.cell.id: r.verdict
                for r in release.card.cells
                if not r.cell.is_control and r.verdict in MEASURED
            },
        )
        for release in releases
    ]
    if not known:
        return []
    found = []
    for cell_id, verdict in known[-1][1].items():
        if verdict == "pass":
            continue
        past = [(name, cells[cell_id]) for name, cells in known if cell_id in cells]
        passed = [n for n, (_, before) in enumerate(past) if before == "pass"]
        first = passed[-1] + 1 if passed else 0
        last = past[passed[-1]][0] if passed else None
        found.append(Red(cell_id, verdict, past[first][0], len(past) - first, last))
    return sorted(found, key=lambda red: (-red.releases, red.id))


def breaks(releases: Sequence[Release]) -> Iterator[tuple[str, str]]:
    """Releases that were measured otherwise than the one before, and the first difference."""
    for before, after in pairwise(releases):
        difference = first_difference(before.card, after.card)
        if difference is not None:
            yield after.name, difference
