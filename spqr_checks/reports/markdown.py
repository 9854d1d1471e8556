"""The report as Markdown: for a file, a pull request or a job summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spqr_checks.hashing import digest
from spqr_checks.matrix import AXES
from spqr_checks.reports import baseline as against
from spqr_checks.reports import scenarios, toml
from spqr_checks.reports.drifts import HEADER, drift_rows
from spqr_checks.reports.files import replace_marked
from spqr_checks.reports.selection import (
    axis_rows,
    control_failures,
    coverage,
    failing,
    headline,
    how_decided,
    interval_name,
    missing,
    remarks,
    remedies,
    to_repeat,
)
from spqr_checks.reports.text import (
    CELL_HEADER,
    NOTHING,
    axis_row,
    cell_row,
    figure,
    one_line,
    protocol_rows,
    shorten,
)
from spqr_checks.scoring.baseline.comparison import BaselineComparison
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard

MARK = "<!-- spqr-checks summary -->"
_ROWS = 200
"""Rows of one table; a job summary holds a megabyte at most."""
_MARKUP = re.compile(r"[\\`*_\[\]~#$@!]|:(?=//)|(?<=www)\.|^[-+=:]", re.IGNORECASE)
"""Signs that mean something anywhere, links that GitHub makes by itself, line beginnings."""
_NUMBERED = re.compile(r"^(\d+)([.)])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}


def write_summary(card: Scorecard, path: Path, baseline: BaselineComparison | None = None) -> None:
    """Write the summary to a file. Raises UserError."""
    replace_marked(path, summary(card, baseline), MARK)


def is_summary(content: bytes) -> bool:
    """Whether these are the bytes of a summary."""
    return content.startswith(MARK.encode())


def summary(card: Scorecard, baseline: BaselineComparison | None = None) -> str:
    """The whole summary, with the comparison if the run has a baseline."""
    parts = [
        MARK,
        f"# {escape(headline(card))}",
        _bullets("Missing", missing(card)),
        _bullets("Why the gate is closed", card.gate.reasons),
        "" if baseline is None else _baseline(baseline),
        _axes(card),
        _scenarios(card),
        _drifts(card),
        _cells("Cells that did not pass", failing(card)),
        _cells("Controls that did not hold", control_failures(card)),
        _bullets("What makes controls hold", remedies(card)),
        _own_checks(card),
        _protocols(card),
        _measured_with(card),
        _reproduce(card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    r"""Text that shows as it is, wherever in a line of Markdown it stands, also in a table.

    It comes out as one line. Punctuation that can mean something gets a backslash; what HTML or
    a table would take for itself becomes an entity, as some tables are split before anything else.
    """
    slashed = _NUMBERED.sub(r"\1\\\2", _MARKUP.sub(r"\\\g<0>", one_line(text)))
    return "".join(_ENTITIES.get(char, char) for char in slashed)


def axes_table(card: Scorecard) -> str:
    """Score, raw score, interval and verdicts of each axis, and of the lines beside them."""
    rows = []
    for name, axis in axis_rows(card):
        score, *rest = axis_row(axis)
        rows.append([escape(name), _bold(score), *rest])
    counts = ("passed", "failed", "inconclusive", "not measurable", "error")
    header = ["axis", "score", "raw", interval_name(card), *counts]
    return table(header, rows, numbers_from=1)


def _axes(card: Scorecard) -> str:
    said = (*coverage(card), *how_decided(card), *remarks(card))
    lines = "".join(f"\n\n{escape(line)}" for line in said)
    return f"## Axes\n\n{axes_table(card)}{lines}"


def _cells(title: str, results: Sequence[CellResult]) -> str:
    if not results:
        return ""
    rows = []
    for name, *figures, reason in map(cell_row, results[:_ROWS]):
        rows.append([escape(name), *figures, escape(reason)])
    return f"## {title}\n\n{table(CELL_HEADER, rows)}{_rest(results)}"


def _scenarios(card: Scorecard) -> str:
    rows = [[escape(text) for text in row] for row in scenarios.table_rows(card)]
    if not rows:
        return ""
    return f"## Scenarios\n\n{scenarios.SAID}\n\n{table(scenarios.HEADER, rows)}"


def _drifts(card: Scorecard) -> str:
    rows = drift_rows(card)
    if not rows:
        return ""
    cells = [[escape(name), *figures] for name, *figures in rows[:_ROWS]]
    said = "base: how often it shows a concept after the same change; learned: of a training."
    return f"## Drift by change\n\n{said}\n\n{table(HEADER, cells)}{_rest(rows)}"


def _own_checks(card: Scorecard) -> str:
    if not card.own:
        return ""
    rows = []
    for check in card.own[:_ROWS]:
        _, verdict, value, bounds, _, n, reason = cell_row(check.result)
        names = (escape(check.test), escape(check.claim))
        rows.append([*names, verdict, value, bounds, n, escape(reason)])
    header = ["test", "claim", "verdict", "value", "interval", "n", "reason"]
    return f"## Own checks\n\nNo part of the number.\n\n{table(header, rows)}{_rest(card.own)}"


def _rest(shown: Sequence[object]) -> str:
    more = len(shown) - _ROWS
    return f"\n\nand {more} more, see scorecard.json" if more > 0 else ""


def _baseline(comparison: BaselineComparison) -> str:
    rows = [
        [
            escape(c.id),
            against.WORDS[c.outcome],
            figure(c.before, c.unit),
            figure(c.after, c.unit),
            against.step(c.worsening, c.unit),
            against.steps(c.bounds, c.unit),
            against.step(c.margin, c.unit),
            str(c.shared) if c.shared else NOTHING,
            escape(c.change),
        ]
        for c in against.changed(comparison)[:_ROWS]
    ]
    header = ["cell", "outcome", "before", "now", "worse by", "bounds", "margin", "shared"]
    rest = len(against.changed(comparison)) - _ROWS
    parts = [
        "## Against the baseline",
        _bold(escape(against.headline(comparison))),
        "\n".join(f"- {escape(reason)}" for reason in comparison.reasons[:_ROWS]),
        escape(against.counts(comparison)),
        table([*header, "change"], rows) if rows else "",
        f"and {rest} more, see baseline.json" if rest > 0 else "",
        "\n".join(f"- {escape(line)}" for line in against.remarks(comparison)),
        escape(f"New: {', '.join(comparison.new[:_ROWS])}") if comparison.new else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _protocols(card: Scorecard) -> str:
    rows = [[escape(name), *scores] for name, *scores in protocol_rows(card.protocols)]
    if not rows:
        return ""
    header = ["protocol", "SPQR (raw)", *AXES]
    return f"## Under each protocol\n\n{table(header, rows, numbers_from=1)}"


def _measured_with(card: Scorecard) -> str:
    return f"## Measured\n\n{things_table(card)}"


def things_table(card: Scorecard) -> str:
    """Candidate, base and judges with their fingerprints."""
    things = [("candidate", card.candidate), ("base", card.base)]
    things += [("judge", judge) for judge in card.judges]
    rows = [[role, escape(described(thing)), digest(thing)] for role, thing in things]
    return table(["", "what", "fingerprint"], rows)


def described(thing: Mapping[str, Any]) -> str:
    """The plain values of a description: ``name miniature, threshold 0.5``.

    Without hashes of code, which the fingerprint holds and nobody reads.
    """
    plain = {
        key: value
        for key, value in thing.items()
        if isinstance(value, str | float | int) and not key.endswith("code")
    }
    return shorten(", ".join(f"{key} {value}" for key, value in plain.items()), 120)


def _reproduce(card: Scorecard) -> str:
    return (
        "## Reproduce\n\nWith the same versions (environment.json), put this into "
        f"`pyproject.toml` and run `spqr run`:\n\n{fenced_settings(card)}"
    )


def fenced_settings(card: Scorecard) -> str:
    """The settings as a block of TOML, or a sentence that says why there is none."""
    try:
        settings = toml.dumps(to_repeat(card), "tool.spqr")
    except ValueError as error:
        return f"These settings cannot be written as TOML: {escape(str(error))}"
    fence = "`" * (max(map(len, re.findall("`+", settings)), default=0) + 3)
    return f"{fence}toml\n{settings}\n{fence}"


def _bullets(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    rest = [f"- and {len(lines) - _ROWS} more, see scorecard.json"] * (len(lines) > _ROWS)
    return "\n".join(
        [f"## {title}\n", *(f"- {escape(line) or NOTHING}" for line in lines[:_ROWS]), *rest]
    )


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int | None = None
) -> str:
    """Of cells that are escaped already; columns from ``numbers_from`` on are set to the right."""
    right = len(header) if numbers_from is None else numbers_from
    rule = ["---" if i < right else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def _bold(text: str) -> str:
    return f"**{text}**"
