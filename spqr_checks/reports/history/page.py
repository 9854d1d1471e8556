"""Releases as one HTML page, like that of a run: axes over releases, and what is red since when."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from spqr_checks.matrix import AXES
from spqr_checks.reports import plots
from spqr_checks.reports.files import replace
from spqr_checks.reports.html import is_page, render
from spqr_checks.reports.selection import gate_word
from spqr_checks.reports.text import VERDICTS
from spqr_checks.scoring.history import Release, breaks, reds
from spqr_checks.statistics.intervals import Interval

MARK = "spqr-checks history"


def write(releases: Sequence[Release], path: Path) -> None:
    """Write the page. Raises UserError."""
    content = page(releases).encode("utf-8", "backslashreplace")
    replace(path, content, partial(is_page, MARK))


def page(releases: Sequence[Release]) -> str:
    """The whole page, of at least one release."""
    names = [release.name for release in releases]
    lines = [("SPQR", [(r.card.spqr, r.card.spqr_interval) for r in releases])]
    for letter, axis in AXES.items():
        own: list[tuple[float | None, Interval | None]] = [
            (r.card.axes[letter].score, r.card.axes[letter].interval) for r in releases
        ]
        lines.append((f"{letter} {axis.title}", own))
    return render(
        "history.html.j2",
        mark=MARK,
        plots=plots,
        rows=[(release, gate_word(release.card)) for release in reversed(releases)],
        axes=list(AXES),
        lines=[(title, plots.timeline(names, values)) for title, values in lines],
        reds=red_rows(releases),
        breaks=[list(pair) for pair in breaks(releases)],
    )


def red_rows(releases: Sequence[Release]) -> list[list[str]]:
    """Cell, verdict, since when, over how many releases, when it last passed."""
    return [
        [red.id, VERDICTS[red.verdict], red.since, str(red.releases), red.last_passed or "never"]
        for red in reds(releases)
    ]
