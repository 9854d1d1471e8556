"""A scorecard as the text of a snapshot: TOML with one line for each cell.

It holds no more digits than the intervals support.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.hashing import digest
from spqr_checks.matrix import AFTER_TUNING
from spqr_checks.reports.rounding import Interval, rounded, widened
from spqr_checks.reports.text import one_line
from spqr_checks.reports.toml import line
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard

VERSION = 1
_PASSING = frozenset({"name", "code", "versions", "device", "dtype"})
"""Keys of a description that change while base and judge stay what they are."""


def snapshot_text(card: Scorecard) -> str:
    """The text of a complete scorecard.

    Raises:
        UserError: a run that is not complete: it has no number, and no snapshot either.
    """
    if not card.complete:
        raise UserError(
            f"the run is incomplete, {len(card.missing)} cells are missing: no snapshot.\n"
            "Run spqr run again; it goes on where it stopped."
        )
    name = one_line(str(card.base.get("name", "")))
    judges = [_fingerprint(judge) for judge in card.judges]
    head = [
        line("version", VERSION),
        line("gate", "passed" if card.gate.passed else "failed"),
        line("protocol", card.protocol),
        f"{line('base', _fingerprint(card.base))}  # {name}",
        line("judges", judges),
    ]
    axes = [*card.axes.items(), (AFTER_TUNING, card.after_tuning)]
    scores = [
        line("SPQR", _score(card.spqr, card.spqr_raw, card.spqr_interval)),
        *(line(name, _score(axis.score, axis.raw, axis.interval)) for name, axis in axes),
    ]
    cells = [line(result.cell.id, _cell(result)) for result in card.cells]
    return "\n".join([*head, "", "[scores]", *scores, "", "[cells]", *cells, ""])


def _score(score: float | None, raw: float | None, interval: Interval | None) -> dict[str, Any]:
    """The interval belongs to the raw score, before the pass factor, which is the value."""
    shown = None if score is None else rounded(score, interval)
    return _measured(raw, interval) | {"score": shown}


def _cell(result: CellResult) -> dict[str, Any]:
    measured = _measured(result.value, result.interval)
    return {"verdict": result.verdict, **measured, "n": result.n}


def _measured(value: float | None, interval: Interval | None) -> dict[str, Any]:
    """What is None is left out of the line."""
    return {
        "value": None if value is None else rounded(value, interval),
        "interval": None if interval is None else widened(interval),
    }


def _fingerprint(description: Mapping[str, Any]) -> str:
    """Digest of what decides a measurement: weights and thresholds, not versions or devices."""
    return digest(_lasting(description))


def _lasting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lasting(item) for key, item in value.items() if key not in _PASSING}
    return [_lasting(item) for item in value] if isinstance(value, list) else value
