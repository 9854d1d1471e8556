"""The report on a terminal or in a log: axes, worst cells, controls, then the number."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spqr_checks.reports import baseline as against
from spqr_checks.reports.selection import (
    axis_rows,
    cells_total,
    control_failures,
    coverage,
    headline,
    how_decided,
    left_out,
    remarks,
    worst,
)
from spqr_checks.reports.text import (
    VERDICTS,
    encodable,
    figure,
    limit,
    one_line,
    plural,
    reason,
    score,
    span,
)
from spqr_checks.scoring.axes import AxisSummary
from spqr_checks.scoring.baseline.comparison import BaselineComparison
from spqr_checks.scoring.cell_result import CellResult, Verdict
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
    _worst_cells(card, console)
    _left_out(card, console)
    _controls(card, console)
    _own_checks(card, console)
    _verdict(card, console)
    if baseline is not None:
        _baseline(baseline, console)
    if report is not None:
        _line(console, f"report: {one_line(str(report))}")


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
    for heading in ("score", "raw", "95 %\ninterval"):
        table.add_column(heading, justify="right", no_wrap=True)
    counts = ["passed", "failed", "incon-\nclusive", "not mea-\nsurable"]
    rows = axis_rows(card)
    has_errors = any(summary.errors for _, summary in rows)
    for heading in [*counts, "error"] if has_errors else counts:
        table.add_column(heading, justify="right")
    for name, summary in rows:
        cells = [name, score(summary.score), score(summary.raw), span(summary.interval)]
        texts = [_text(console, cell) for cell in cells]
        table.add_row(*texts, *_counts(summary, has_errors))
    return table


def _counts(summary: AxisSummary, with_errors: bool) -> list[Text]:
    pairs: list[tuple[int, Verdict]] = [
        (summary.passed, "pass"),
        (summary.failed, "fail"),
        (summary.inconclusive, "inconclusive"),
        (summary.not_measurable, "not_measurable"),
    ]
    if with_errors:
        pairs.append((summary.errors, "error"))
    return [Text(str(count), style=_STYLES[verdict] if count else "") for count, verdict in pairs]


def _worst_cells(card: Scorecard, console: Console) -> None:
    cells = worst(card, _WORST)
    if not cells:
        return
    console.print()
    _line(console, "worst cells", "bold")
    for result in cells:
        _cell(console, result)


def _left_out(card: Scorecard, console: Console) -> None:
    lines = left_out(card)
    if lines:
        console.print()
        _line(console, "not measurable", "bold")
        _list(console, lines)


def _controls(card: Scorecard, console: Console) -> None:
    controls = control_failures(card)
    if not controls:
        return
    console.print()
    _line(console, "controls that did not hold", "bold")
    for result in controls[:_LISTED]:
        _cell(console, result)
    _rest(console, len(controls))


def _own_checks(card: Scorecard, console: Console) -> None:
    if not card.own:
        return
    console.print()
    _line(console, "own checks (no part of the number)", "bold")
    for check in card.own[:_LISTED]:
        result = check.result
        head = Text(VERDICTS[result.verdict], style=_STYLES[result.verdict])
        line = encodable(f"  {one_line(check.id)}", console.encoding)
        head.append(line, style="default")
        console.print(Padding(head, (0, 0, 0, 2), expand=False))
        interval = span(result.interval, result.unit)
        numbers = f"{figure(result.value, result.unit)}  (interval {interval}, n {result.n})"
        _line(console, numbers, indent=4)
        if result.reason:
            _line(console, reason(result), "dim", indent=4)
    _rest(console, len(card.own))


def _cell(console: Console, result: CellResult) -> None:
    """Three lines: which cell, its numbers, the reason."""
    head = Text(VERDICTS[result.verdict], style=_STYLES[result.verdict])
    head.append(encodable(f"  {one_line(result.cell.id)}", console.encoding), style="default")
    console.print(Padding(head, (0, 0, 0, 2), expand=False))
    unit = result.unit
    numbers = (
        f"{figure(result.value, unit)}  (interval {span(result.interval, unit)}, "
        f"{limit(result)} needed, n {result.n})"
    )
    _line(console, numbers, indent=4)
    if result.reason:
        _line(console, reason(result), "dim", indent=4)


def _verdict(card: Scorecard, console: Console) -> None:
    good = card.complete and card.gate.passed
    console.print()
    _line(console, headline(card), "bold green" if good else "bold red")
    _list(console, [f"{m.id}: {m.reason}" for m in card.missing])
    _list(console, card.gate.reasons)
    if not card.complete:
        done = cells_total(card) - len(card.missing)
        _line(console, f"{plural(done, 'cell')} measured; run again to measure the missing ones")


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
