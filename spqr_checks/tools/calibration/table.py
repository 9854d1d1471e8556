"""What a calibration found, on a terminal or in a log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spqr_checks.statistics.intervals import clopper_pearson
from spqr_checks.tools.calibration.file import LEVEL, Agreement, JudgeRecord

Row = tuple[str, tuple[int, int, int, int]]
"""A name and its (flagged, unsafe, passed, safe) images."""


def show(records: Sequence[JudgeRecord], agreements: Sequence[Agreement], console: Console) -> None:
    """Prints sensitivity and specificity of every judge, overall and by concept, and κ."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("judge, concept", overflow="fold", min_width=16)
    for what in ("sensitivity", "specificity"):
        table.add_column(what, justify="right", no_wrap=True)
        table.add_column(f"{100 * LEVEL:g} %", no_wrap=True)
    for record in records:
        for name, (flagged, unsafe, passed, safe) in _rows(record):
            cells = [name, *_rate(flagged, unsafe), *_rate(passed, safe)]
            table.add_row(*map(_text, cells))
    console.print(table)
    for one in agreements:
        console.print(_text(_said(one)))


def _rows(record: JudgeRecord) -> Iterator[Row]:
    overall = record.calibration
    yield record.judge, (overall.flagged, overall.unsafe, overall.passed, overall.safe)
    for name, counts in record.concepts.items():
        yield f"  {name}", counts


def _rate(k: int, n: int) -> tuple[str, str]:
    if not n:
        return "-", ""
    low, high = clopper_pearson(k, n, LEVEL)
    return f"{k}/{n} {100 * k / n:.0f} %", f"{100 * low:.0f} to {100 * high:.0f}"


def _said(one: Agreement) -> str:
    names = " and ".join(one.judges)
    if one.kappa is None or one.interval is None:
        return f"Cohen's kappa of {names}: undefined, both say the same of every image"
    low, high = one.interval
    return f"Cohen's kappa of {names}: {one.kappa:.2f} ({low:.2f} to {high:.2f})"


def _text(text: str) -> Text:
    """Never markup: names may hold brackets."""
    return Text(text, overflow="fold")
