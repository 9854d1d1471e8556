"""The leaderboard as one HTML page that needs nothing but itself: no script, no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spqr_checks.matrix import AXES
from spqr_checks.reports import plots, selection, toml
from spqr_checks.reports.album import Album
from spqr_checks.reports.files import replace
from spqr_checks.reports.html import is_page, render
from spqr_checks.reports.leaderboard import wording
from spqr_checks.reports.leaderboard.pictures import grids
from spqr_checks.reports.markdown import described
from spqr_checks.reports.text import CELL_HEADER, VERDICTS, axis_row, cell_row, protocol_rows
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.comparable import CANDIDATES_OWN
from spqr_checks.scoring.leaderboard.board import Drift, Leaderboard, Row
from spqr_checks.scoring.scorecard import Scorecard

MARK = "spqr-checks leaderboard"
_CELLS = 20


def write(board: Leaderboard, cards: Mapping[str, Scorecard], store_root: Path, path: Path) -> None:
    """Write the page. Raises UserError."""
    content = page(board, cards, Album(store_root, *cards.values())).encode(
        "utf-8", "backslashreplace"
    )
    replace(path, content, partial(is_page, MARK))


def page(board: Leaderboard, cards: Mapping[str, Scorecard], album: Album) -> str:
    """The whole page.

    Args:
        cards: scorecards of the rows that have one, by name.
        album: where pictures come from; what it lacks is said on the page.
    """
    base = f" Base: {board.base.get('name', 'unnamed')}." if board.base else ""
    charts = [(row, plots.radar(row.axes)) for row in board.rows if row.axes]
    things = [("base", board.base)] if board.base else []
    things += [("judge", judge) for judge in board.judges]
    return render(
        "leaderboard.html.j2",
        mark=MARK,
        board=board,
        wording=wording,
        plots=plots,
        axes=[(letter, axis.title) for letter, axis in AXES.items()],
        about=f"{wording.headline(board)}.{base}",
        undecided=wording.undecided(board),
        charts=[(row, chart) for row, chart in charts if chart],
        categories=sorted({name for row in board.rows for name in row.categories}),
        profiles=_profiles(board),
        scale=plots.scale(drift for row in board.rows for drift in row.drifts),
        grids=grids(board, cards, album),
        details=[(row, _detail(row, cards.get(row.name))) for row in board.rows],
        things=[(role, described(thing)) for role, thing in things],
        shared_settings=toml.shown(board.settings),
    )


def _profiles(board: Leaderboard) -> dict[str, list[tuple[Row, Drift]]]:
    """Drifts by profile, fine-tunings below one another, candidates in their rank order."""
    found = [(row, drift) for row in board.rows for drift in row.drifts]
    # stable: candidates keep their order within a fine-tuning
    found.sort(key=lambda pair: (pair[1].dataset, pair[1].seed))
    names = sorted({drift.profile for _, drift in found})
    return {name: [pair for pair in found if pair[1].profile == name] for name in names}


@dataclass(frozen=True, slots=True)
class Table:
    """Texts below a header; ``rest`` further rows are left out."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    rest: int = 0


@dataclass(frozen=True, slots=True)
class Detail:
    """What lies behind a row: reasons, axes, worst cells, protocols, its own settings as TOML."""

    headline: str
    reasons: Sequence[str]
    tables: Sequence[Table]
    settings: Sequence[str]


def _detail(row: Row, card: Scorecard | None) -> Detail | None:
    if card is None:
        return None
    tables = [
        _axes(card),
        _cells("Cells that did not pass", selection.failing(card)),
        _cells("Controls that did not hold", selection.control_failures(card)),
        _protocols(row),
    ]
    own = {key: value for key, value in card.settings.items() if key in CANDIDATES_OWN}
    return Detail(
        selection.headline(card), card.gate.reasons, [t for t in tables if t.rows], toml.shown(own)
    )


def _axes(card: Scorecard) -> Table:
    header = ["axis", "score", "raw", "interval of raw", *VERDICTS.values()]
    rows = [[name, *axis_row(axis)] for name, axis in selection.axis_rows(card)]
    return Table("Axes", header, rows)


def _cells(title: str, results: Sequence[CellResult]) -> Table:
    rows = [cell_row(result) for result in results[:_CELLS]]
    return Table(title, CELL_HEADER, rows, max(0, len(results) - _CELLS))


def _protocols(row: Row) -> Table:
    title = "Under each protocol, without credits"
    return Table(title, ["protocol", "SPQR", *AXES], protocol_rows(row.protocols))
