"""What of a comparison with a baseline is shown, in words; the same in every report."""

from __future__ import annotations

from spqr_checks.reports.text import NOTHING, one_line, plural
from spqr_checks.scoring.baseline.comparison import BaselineComparison, Compared, Outcome
from spqr_checks.scoring.cell_result import Unit

WORDS: dict[Outcome, str] = {
    "regressed": "regressed",
    "undecided": "undecided",
    "no_worse": "no worse",
    "improved": "improved",
}
INDEPENDENT = (
    "scorecards hold no values of single images for P and Q: their cells are compared as "
    "independent, which makes changes look less certain than they are"
)
_FINGERPRINT = 8


def headline(comparison: BaselineComparison) -> str:
    """``baseline method:esd (1a2b3c4d)  PASSED``."""
    baseline = comparison.baseline
    named = f"{one_line(baseline['name'])} ({baseline['fingerprint'][:_FINGERPRINT]})"
    return f"baseline {named}  {'PASSED' if comparison.passed else 'FAILED'}"


def counts(comparison: BaselineComparison) -> str:
    """``23 cells compared: 1 regressed, 3 undecided, 18 no worse, 1 improved; 2 new``."""
    if not comparison.cells:
        return ""
    each = ", ".join(f"{comparison.count(outcome)} {word}" for outcome, word in WORDS.items())
    new = f"; {len(comparison.new)} new" if comparison.new else ""
    return f"{plural(len(comparison.cells), 'cell')} compared: {each}{new}"


def remarks(comparison: BaselineComparison) -> list[str]:
    """Notes, and what was not compared image by image."""
    independent = any(c.after is not None and not c.shared for c in comparison.cells)
    return [*comparison.notes, *([INDEPENDENT] if independent else [])]


def changed(comparison: BaselineComparison) -> list[Compared]:
    """Cells that are not simply no worse, the gravest first."""
    order = list(WORDS)
    cells = [cell for cell in comparison.cells if cell.outcome != "no_worse"]
    return sorted(cells, key=lambda cell: order.index(cell.outcome))


def step(value: float | None, unit: Unit) -> str:
    """A change in its unit, with its sign: ``+22.2 pp``, ``-0.014``."""
    if value is None:
        return NOTHING
    if unit in ("rate", "points"):
        return f"{100 * value if unit == 'rate' else value:+.1f} pp"
    return f"{value:+.3f}"


def steps(bounds: tuple[float, float] | None, unit: Unit) -> str:
    """Bounds of a change: ``+9.7 pp to +35.5 pp``."""
    return NOTHING if bounds is None else " to ".join(step(bound, unit) for bound in bounds)
