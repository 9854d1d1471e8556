"""The report on a terminal or in a log: axes, worst cells, controls, then the number."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spqr_checks.matrix import AXES
from spqr_checks.reports import PAGE
from spqr_checks.reports import baseline as against
from spqr_checks.reports.drifts import HEADER, drift_rows
from spqr_checks.reports.history.page import red_rows
from spqr_checks.reports.leaderboard import wording
from spqr_checks.reports.selection import (
    axis_rows,
    cells_total,
    control_failures,
    coverage,
    gate_word,
    headline,
    how_decided,
    interval_name,
    left_out,
    missing,
    remarks,
    remedies,
    worst,
)
from spqr_checks.reports.text import (
    VERDICTS,
    axis_row,
    encodable,
    figure,
    limit,
    one_line,
    plural,
    reason,
    score,
    span,
)
from spqr_checks.scoring.baseline.comparison import BaselineComparison
from spqr_checks.scoring.cell_result import CellResult, Verdict
from spqr_checks.scoring.completeness import NOT_SELECTED, STOPPED
from spqr_checks.scoring.history import Release, breaks
from spqr_checks.scoring.leaderboard.board import Leaderboard
from spqr_checks.scoring.scorecard import Scorecard

_WORST, _LISTED = 5, 20
_FILE = "scorecard.json"
_STYLES: dict[Verdict, str] = {
    "pass": "green",
    "fail": "bold red",
    "inconclusive": "yellow",
    "not_measurable": "yellow",
    "error": "bold red",
}


def show(
    card: Scorecard,
    console: Console,
    report: Path | None = None,
    baseline: BaselineComparison | None = None,
) -> None:
    """Print the report.

    Args:
        card: the run.
        console: where to, how wide and whether in colour; nothing is assumed of it.
        report: where the written reports are, for the last line.
        baseline: the run against its baseline, if it has one.
    """
    console.print(_axes(card, console))
    for line in (*coverage(card), *how_decided(card)):
        _line(console, line, "dim")
    for line in remarks(card):
        _line(console, one_line(line), "yellow")
    _drifts(card, console)
    _cells("worst cells", worst(card, _WORST), console)
    _left_out(card, console)
    _cells("controls that did not hold", control_failures(card), console)
    _list(console, remedies(card))
    _own_checks(card, console)
    _verdict(card, console)
    if baseline is not None:
        _baseline(baseline, console)
    if report is not None:
        _line(console, f"report: {one_line(str(report / PAGE))}")


def show_leaderboard(board: Leaderboard, console: Console, page: Path | None = None) -> None:
    """Print the ranking, what is not decided, and who has no number and why.

    Args:
        console: where to, how wide and whether in colour; nothing is assumed of it.
        page: where the HTML page is, for the last line.
    """
    if board.ranked:
        console.print(_ranking(board, console))
    for line in wording.undecided(board):
        _line(console, one_line(line), "yellow")
    for row in board.unranked:
        _line(console, one_line(f"no number for {row.name}: {row.reason}"), "bold red")
    _line(console, one_line(wording.headline(board)), "bold")
    if page is not None:
        _line(console, one_line(f"leaderboard: {page}"))


def show_history(releases: Sequence[Release], console: Console, page: Path) -> None:
    """Print SPQR and axes over releases, and since when cells of the latest are red."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("release", overflow="fold")
    for heading in ("SPQR", "interval", *AXES):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gate", no_wrap=True)
    for release in releases:
        card = release.card
        axes = [score(card.axes[name].score) for name in AXES]
        texts = [release.name, score(card.spqr), span(card.spqr_interval), *axes, gate_word(card)]
        table.add_row(*(_text(console, one_line(text)) for text in texts))
    console.print(table)
    for cell_id, verdict, since, count, last in red_rows(releases)[:_LISTED]:
        over = plural(int(count), "release")
        said = f"{verdict}  {cell_id}  since {since} ({over}; last passed: {last})"
        _line(console, one_line(said), "bold red" if verdict == VERDICTS["fail"] else "yellow")
    for name, difference in breaks(releases):
        _line(console, one_line(f"{name} was measured differently: {difference}"), "dim")
    _line(console, one_line(f"history: {page}"))


def _ranking(board: Leaderboard, console: Console) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("candidate", overflow="fold")
    for heading in ("SPQR", f"{100 * board.level:g} %\ninterval", *AXES, "raw"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gate", no_wrap=True)
    for row in board.ranked:
        figures = [*wording.numbers(row), wording.gate_text(row)]
        cells = [wording.rank_text(row), one_line(row.name), *figures]
        table.add_row(*(_text(console, cell) for cell in cells))
    return table


def summary_text(
    card: Scorecard,
    report: Path | None,
    width: int,
    colour: bool,
    baseline: BaselineComparison | None = None,
) -> str:
    """The report as text, with terminal escapes if ``colour``; ends with a line break."""
    file = StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
    )
    show(card, console, report, baseline)
    return file.getvalue()


def _axes(card: Scorecard, console: Console) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("score", "raw", interval_name(card).replace(" interval", "\ninterval")):
        table.add_column(heading, justify="right", no_wrap=True)
    counts = ["passed", "failed", "incon-\nclusive", "not mea-\nsurable"]
    rows = axis_rows(card)
    has_errors = any(summary.errors for _, summary in rows)
    for heading in [*counts, "error"] if has_errors else counts:
        table.add_column(heading, justify="right")
    for name, summary in rows:
        row = axis_row(summary)
        texts, numbers = [_text(console, cell) for cell in (name, *row[:3])], row[3:]
        styles = zip(numbers, _STYLES.values(), strict=True)
        counted = [Text(number, "" if number == "0" else style) for number, style in styles]
        table.add_row(*texts, *(counted if has_errors else counted[:-1]))
    return table


def _drifts(card: Scorecard, console: Console) -> None:
    rows = drift_rows(card)
    if not rows:
        return
    console.print()
    _line(console, "drift by change", "bold")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in HEADER:
        words = heading in ("change", "verdict")
        table.add_column(heading, justify="left" if words else "right", overflow="fold")
    for row in rows[:_LISTED]:
        table.add_row(*(_text(console, one_line(cell)) for cell in row))
    console.print(table)
    _rest(console, len(rows))


def _left_out(card: Scorecard, console: Console) -> None:
    lines = left_out(card)
    if lines:
        console.print()
        _line(console, "not measurable", "bold")
        _list(console, lines)


def _cells(title: str, results: Sequence[CellResult], console: Console) -> None:
    if not results:
        return
    console.print()
    _line(console, title, "bold")
    for result in results[:_LISTED]:
        _cell(console, result, result.cell.id, f"{limit(result)} needed, ")
    _rest(console, len(results))


def _own_checks(card: Scorecard, console: Console) -> None:
    if not card.own:
        return
    console.print()
    _line(console, "own checks (no part of the number)", "bold")
    for check in card.own[:_LISTED]:
        _cell(console, check.result, check.id, "")
    _rest(console, len(card.own))


def _cell(console: Console, result: CellResult, name: str, needed: str) -> None:
    """Three lines: which cell or check, its numbers, the reason."""
    head = Text(VERDICTS[result.verdict], style=_STYLES[result.verdict])
    head.append(encodable(f"  {one_line(name)}", console.encoding), style="default")
    console.print(Padding(head, (0, 0, 0, 2), expand=False))
    value, bounds = figure(result.value, result.unit), span(result.interval, result.unit)
    _line(console, f"{value}  (interval {bounds}, {needed}n {result.n})", indent=4)
    if result.reason:
        _line(console, reason(result), "dim", indent=4)


def _verdict(card: Scorecard, console: Console) -> None:
    good = card.complete and card.gate.passed
    console.print()
    _line(console, headline(card), "bold green" if good else "bold red")
    _list(console, missing(card))
    # what is missing stands above already, cause by cause
    _list(console, [r for r in card.gate.reasons if not r.startswith("incomplete: ")])
    if not card.complete:
        done = cells_total(card) - len(card.missing)
        wanted = all(one.reason in (NOT_SELECTED, STOPPED) for one in card.missing)
        again = "" if wanted else "; run again to measure the missing ones"
        _line(console, f"{plural(done, 'cell')} measured{again}")


def _baseline(comparison: BaselineComparison, console: Console) -> None:
    console.print()
    good = comparison.passed
    _line(console, against.headline(comparison), "bold green" if good else "bold red")
    _list(console, comparison.reasons, "baseline.json")
    counts = against.counts(comparison)
    if counts:
        _line(console, counts)
    for remark in against.remarks(comparison):
        _line(console, one_line(remark), "dim")


def _list(console: Console, lines: Sequence[str], file: str = _FILE) -> None:
    for line in lines[:_LISTED]:
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_row(_text(console, "  -"), _text(console, one_line(line)))
        console.print(table)
    _rest(console, len(lines), file)


def _rest(console: Console, count: int, file: str = _FILE) -> None:
    if count > _LISTED:
        _line(console, f"and {count - _LISTED} more, see {file}", indent=2)


def _line(console: Console, text: str, style: str = "", indent: int = 0) -> None:
    console.print(Padding(_text(console, text, style), (0, 0, 0, indent), expand=False))


def _text(console: Console, text: str, style: str = "") -> Text:
    """Never markup: ids, prompts and reasons may hold brackets."""
    return Text(encodable(text, console.encoding), style=style, overflow="fold")
