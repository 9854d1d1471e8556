"""Words and figures that all reports share. Everything from outside becomes one visible line."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING

from spqr_checks.matrix import AXES
from spqr_checks.scoring.cell_result import CellResult, Unit, Verdict

if TYPE_CHECKING:
    from spqr_checks.scoring.axes import AxisSummary
    from spqr_checks.scoring.run_protocols import ProtocolScore

NOTHING = "—"
VERDICTS: dict[Verdict, str] = {
    "pass": "passed",
    "fail": "failed",
    "inconclusive": "inconclusive",
    "not_measurable": "not measurable",
    "error": "error",
}
_JOINERS = frozenset("\u200c\u200d")
"""Format characters that Arabic, Persian and Indic spelling needs; harmless on a screen."""


def one_line(text: str) -> str:
    """The text on one line, with nothing in it that a terminal or a browser would obey.

    White space of any kind becomes single spaces; control characters (terminal escapes),
    direction overrides, lone surrogates and private characters become visible escapes.
    """
    line = " ".join(text.split())
    # pictures are long, plain and need not be looked at letter by letter
    plain = line.isascii() and line.isprintable()
    return line if plain else "".join(map(_visible, line))


def lines(text: str) -> str:
    """The same for text whose lines and spaces mean something."""
    return "\n".join("".join(map(_visible, line.expandtabs())) for line in text.splitlines())


def _visible(char: str) -> str:
    if unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn"} or char in _JOINERS:
        return char
    # the codec leaves ASCII as it is
    hexadecimal = f"\\x{ord(char):02x}"
    return char.encode("ascii", "backslashreplace").decode() if char > "\x7f" else hexadecimal


def shorten(text: str, width: int) -> str:
    """At most ``width`` characters of the one-line text, with an ellipsis where cut."""
    line = one_line(text)
    return line if len(line) <= width else line[: max(0, width - 1)].rstrip() + "…"


def encodable(text: str, encoding: str) -> str:
    """The text with what the encoding lacks spelled otherwise, so that printing cannot fail."""
    plain = {"·": "-", "—": "-", "–": "-", "…": "...", "≤": "<=", "≥": ">=", "×": "x", "→": "->"}

    def known(char: str) -> bool:
        try:
            char.encode(encoding)
        except UnicodeEncodeError:
            return False
        return True

    swapped = "".join(c if known(c) else plain.get(c, c) for c in text)
    return swapped.encode(encoding, "backslashreplace").decode(encoding)


def score(value: float | None) -> str:
    """A score with three decimals: ``0.873``; a dash where there is none."""
    return NOTHING if value is None else f"{value:.3f}"


def figure(value: float | None, unit: Unit) -> str:
    """A measured quantity in its unit: ``1.7 %``, ``0.982``, ``+3.1 pp``."""
    if value is None:
        return NOTHING
    if unit == "rate":
        return f"{100 * value:.1f} %"
    if unit == "points":
        return f"{value:+.1f} pp"
    return f"{value:.3f}"


def span(interval: tuple[float, float] | None, unit: Unit | None = None) -> str:
    """An interval: ``0.2–4.1 %``, ``0.912–0.954``, ``-1.2 to +3.1 pp``."""
    if interval is None:
        return NOTHING
    low, high = interval
    if unit == "rate":
        return f"{100 * low:.1f}–{100 * high:.1f} %"
    if unit == "points":
        return f"{low:+.1f} to {high:+.1f} pp"
    return f"{low:.3f}–{high:.3f}"


def measured(result: CellResult) -> str:
    """``1.7 %, interval 0.2–4.1 %, n 96``."""
    value, bounds = figure(result.value, result.unit), span(result.interval, result.unit)
    return f"{value}, interval {bounds}, n {result.n}"


def plural(count: int, noun: str) -> str:
    """``1 cell``, ``3 cells``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def limit(result: CellResult) -> str:
    """What the cell's value is held against, with its side: ``≤ 20.0 %``, ``≥ 0.900``."""
    sign = "≤" if result.cell.row.direction == "at_most" else "≥"
    return f"{sign} {figure(result.threshold, result.unit)}"


def axis_row(axis: AxisSummary) -> list[str]:
    """Score, raw score, interval of the score, and how many cells have each of `VERDICTS`."""
    counts = (axis.passed, axis.failed, axis.inconclusive, axis.not_measurable, axis.errors)
    return [score(axis.score), score(axis.raw), span(axis.interval), *map(str, counts)]


CELL_HEADER = ("cell", "verdict", "value", "interval", "needed", "n", "reason")


def cell_row(result: CellResult) -> list[str]:
    """What `CELL_HEADER` names."""
    value, bounds = figure(result.value, result.unit), span(result.interval, result.unit)
    said = [VERDICTS[result.verdict], value, bounds, limit(result), str(result.n)]
    return [result.cell.id, *said, reason(result)]


def protocol_rows(protocols: Mapping[str, ProtocolScore]) -> list[list[str]]:
    """Each protocol's name, SPQR and axes."""
    found = sorted(protocols.items())
    return [[name, *map(score, (p.spqr, p.S, p.P, p.Q, p.R))] for name, p in found]


def numbers(result: CellResult) -> list[tuple[str, str]]:
    """What was measured and what it is held against, by name, in the words of all reports."""
    return [
        ("verdict", VERDICTS[result.verdict]),
        ("value", figure(result.value, result.unit)),
        ("interval", span(result.interval, result.unit)),
        ("threshold", limit(result)),
        ("n", str(result.n)),
        ("score", score(result.score)),
        ("credit", score(result.credit)),
    ]


def reason(result: CellResult) -> str:
    """Why the cell did not pass, without the verdict before it; empty where nothing is said."""
    return one_line(result.reason).removeprefix(f"{VERDICTS[result.verdict]}: ")


def message(result: CellResult) -> str:
    """The sentence a test fails (or is skipped) with; its first words say what kind it is.

    Whoever sorts failures by their text (see `spqr_checks.reports.allure.write_categories`) goes
    by these words: ``safety regression:``, ``utility loss:``, ``control failed:``,
    ``inconclusive:``, ``not measurable:``, ``error:``.
    """
    if result.verdict == "fail":
        cell = result.cell
        kind = "control failed" if cell.is_control else AXES[cell.axis].failure
    else:
        kind = VERDICTS[result.verdict]
    return f"{kind}: {reason(result) or 'no reason given'}"
