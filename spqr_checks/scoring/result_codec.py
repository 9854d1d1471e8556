"""A cell's result as a flat JSON object and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, get_args

from spqr_checks.matrix import Cell, Check, Origin, State, Tuning
from spqr_checks.scoring.cell_result import CellResult, ImageRef, Unit, Verdict
from spqr_checks.scoring.fields import Fields, MalformedError, read_object

_CHECKS: tuple[Check, ...] = get_args(Check)
_ORIGINS: tuple[Origin, ...] = get_args(Origin)
_UNITS: tuple[Unit, ...] = get_args(Unit)
_VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


def result_to_dict(result: CellResult) -> dict[str, Any]:
    """Plain JSON values; as used in scorecard.json and between processes.

    Numbers that are not finite become null, which no verdict survives: `score` treats a verdict
    without its number as an error.

    Raises:
        TypeError: details that are no JSON values or numbers.
    """
    cell = result.cell
    tuning = cell.state.tuning
    return {
        "id": cell.id,
        "axis": cell.axis,
        "check": cell.check,
        "concept": cell.concept,
        "category": cell.category,
        "language": cell.language,
        "domain": cell.domain,
        "attack": cell.attack,
        "state": cell.state.name,
        "origin": cell.state.origin,
        "tuning": None
        if tuning is None
        else {"profile": tuning.profile, "dataset": tuning.dataset, "seed": tuning.seed},
        "control": cell.is_control,
        "verdict": result.verdict,
        "score": _finite(result.score),
        "value": _finite(result.value),
        "interval": _finite_pair(result.interval),
        "p": _finite_pair(result.p),
        "threshold": float(result.threshold),
        "unit": result.unit,
        "n": int(result.n),
        "reason": result.reason,
        "details": plain(result.details),
        "images": [
            {"path": i.path, "prompt": i.prompt, "seed": int(i.seed), "flagged": bool(i.flagged)}
            for i in result.images
        ],
    }


def result_from_dict(value: Mapping[str, Any]) -> CellResult:
    """The inverse of `result_to_dict`.

    Raises:
        MalformedError: (a ValueError) fields missing, unknown, of another type or contradictory.
    """
    return read_object(value, "cell result", read_result)


def read_result(fields: Fields) -> CellResult:
    """Reads a result; what follows from the cell (id, axis …) must agree with it."""
    state = State(
        fields.choice("origin", _ORIGINS),
        fields.optional("tuning", _read_tuning),
    )
    cell = Cell(
        fields.choice("check", _CHECKS),
        state,
        fields.text("concept"),
        fields.text("category"),
        fields.text("language"),
        fields.text("domain"),
        fields.optional_text("attack"),
    )
    for name, given, derived in (
        ("id", fields.text("id"), cell.id),
        ("axis", fields.text("axis"), cell.axis),
        ("state", fields.text("state"), state.name),
        ("control", fields.flag("control"), cell.is_control),
    ):
        if given != derived:
            raise MalformedError(f"cell {cell.id}: field {name!r} is {given!r}, not {derived!r}")
    return CellResult(
        cell=cell,
        verdict=fields.choice("verdict", _VERDICTS),
        score=fields.optional_number("score"),
        value=fields.optional_number("value"),
        interval=fields.optional_pair("interval"),
        threshold=fields.number("threshold"),
        unit=fields.choice("unit", _UNITS),
        n=fields.integer("n"),
        reason=fields.text("reason"),
        details=fields.mapping("details"),
        images=fields.each("images", _read_image),
        p=fields.optional_pair("p"),
    )


def plain(value: Any) -> Any:
    """JSON values from Python's and numpy's numbers; those that are not finite become null."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _finite(float(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    raise TypeError(f"a result's details hold {type(value).__name__}, which is not JSON")


def _read_tuning(fields: Fields) -> Tuning:
    return Tuning(fields.text("profile"), fields.text("dataset"), fields.integer("seed"))


def _read_image(fields: Fields) -> ImageRef:
    return ImageRef(
        fields.text("path"), fields.text("prompt"), fields.integer("seed"), fields.flag("flagged")
    )


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)


def _finite_pair(pair: tuple[float, float] | None) -> list[float] | None:
    if pair is None or not all(map(math.isfinite, pair)):
        return None
    return [float(bound) for bound in pair]
