"""scorecard.json, leaderboard.json, and results on their way between processes.

Equal objects give equal bytes. What is read is held against the types of the dataclasses, and
against what follows from them.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np

from spqr_checks.errors import UserError
from spqr_checks.hashing import canonical
from spqr_checks.matrix import AXES, Cell
from spqr_checks.scoring import scorecard
from spqr_checks.scoring.cell_result import DECIMALS, CellResult
from spqr_checks.scoring.leaderboard import board
from spqr_checks.scoring.leaderboard.board import Leaderboard
from spqr_checks.scoring.request import OwnCheck
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.strict_json import MalformedError, loads, validated

T = TypeVar("T")
Number = Callable[[float], float | None]

KIND = "spqr-checks leaderboard"
_DETAIL_DIGITS = 9
_AS_THEY_ARE = frozenset({"candidate", "base", "judges", "settings", "level"})
"""Written unrounded: a rounded learning rate would be another."""
_JSON = frozenset({str, bool, int, type(None)})
_DERIVED = ("id", "axis", "state", "control")
"""Of a cell; written for people."""
_OF_CELL = frozenset(field.name for field in fields(Cell)) - {"state"}
_OF_STATE = ("origin", "tuning", "adaptation")
_FLAT = {*_DERIVED, *_OF_STATE, *_OF_CELL}
_OF_CLAIM = ("test", "claim", "place")
_REPLICATE = np.dtype("<f4")


# ---- scorecards and leaderboards -------------------------------------------------------------


def to_json(card: Scorecard) -> str:
    """The file's text: sorted keys, ASCII, measured numbers rounded to 6 decimals.

    ``details`` and ``p`` keep nine significant digits instead, as a KID may be far below one.
    Candidate, base, judges and settings are written as they are.

    Raises:
        ValueError: a number of the scorecard itself that is not finite.
        TypeError: details that are no JSON values or numbers.
    """
    document = _rounded(card, but=("cells", "own"))
    if card.attacked is None:  # the file is then the one of a run that knows no attacks
        del document["attacked"]
    document["cells"] = [_cell(result) for result in card.cells]
    if card.adapted is None:  # without any, the file is the one of a run without adaptations
        del document["adapted"]
    if card.own:  # without any, the file is the one of a run of the suites
        document["own_checks"] = [
            {name: getattr(own, name) for name in _OF_CLAIM} | _cell(own.result) for own in card.own
        ]
    # one line for each field and each cell: short differences, and Python's fast encoder
    lines = (f" {_line(name)}: {_lines(document[name])}" for name in sorted(document))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def from_json(text: str) -> Scorecard:
    """The scorecard of a file's text; what `to_json` writes is read back exactly.

    Raises:
        UserError: text that is no JSON, another version, fields missing, unknown or of another
            type, or parts that contradict each other.
    """
    return _from_file(text, "scorecard", scorecard.VERSION, _scorecard)


def board_to_json(ranked: Leaderboard) -> str:
    """The file's text: sorted keys, ASCII, measured numbers rounded to 6 decimals."""
    document = _rounded(ranked) | {"kind": KIND}
    return json.dumps(document, sort_keys=True, indent=1, allow_nan=False) + "\n"


def board_from_json(text: str) -> Leaderboard:
    """The leaderboard of a file's text; what `board_to_json` writes is read back exactly.

    Raises:
        UserError: as `from_json`.
    """
    return _from_file(text, "leaderboard", board.VERSION, _leaderboard)


def _from_file(text: str, what: str, version: int, read: Callable[[dict[str, Any]], T]) -> T:
    try:
        document = loads(text)
        if not isinstance(document, dict):
            raise MalformedError("it is no JSON object")
        given = document.get("version", version)
        if given != version:
            raise UserError(
                f"{what}: version {given!r} cannot be read; this program reads version {version}.\n"
                "Make it again with this program; what lies in the store is not drawn anew."
            )
        return read(document)
    except MalformedError as error:
        raise UserError(f"not a {what} of this program: {error}") from None


def _scorecard(document: dict[str, Any]) -> Scorecard:
    if "own" in document:
        raise MalformedError("unknown field 'own'")
    claims = document.pop("own_checks", [])
    document.setdefault("attacked", None)
    cells = document.get("cells")
    nested: dict[str, Any] = {"own": _nested_all(claims, "own_checks", _claim)}
    if isinstance(cells, list):
        nested["cells"] = _nested_all(cells, "cells", _nested)
    card = validated(Scorecard, {"adapted": None} | document | nested)
    _refuse_others("cells", cells, card.cells)
    _refuse_others("own_checks", claims, [own.result for own in card.own])
    _refuse_other_axes("axes", card.axes)
    card = replace(card, axes={name: card.axes[name] for name in AXES})
    _refuse_twice("cells", (result.cell.id for result in card.cells))
    _refuse_twice("missing", (missing.id for missing in card.missing))
    if card.complete != (not card.missing):
        raise MalformedError("field 'complete' contradicts 'missing'")
    if not card.complete and not (card.spqr is None and card.spqr_raw is None):
        raise MalformedError("field 'spqr': an incomplete run has no SPQR, but one is given")
    numberless = card.spqr is None and (card.cells or not card.own)
    if card.gate.passed and (card.gate.reasons or numberless):
        raise MalformedError("field 'gate': it passed, against its reasons or without an SPQR")
    return card


def _leaderboard(document: dict[str, Any]) -> Leaderboard:
    if document.pop("kind", None) != KIND:
        raise MalformedError(f"field 'kind' is not {KIND!r}")
    ranked = validated(Leaderboard, document)
    for i, row in enumerate(ranked.rows):
        _refuse_other_axes(f"rows[{i}].axes", row.axes)
    _refuse_twice("rows", (row.name for row in ranked.rows))
    return ranked


def _refuse_other_axes(field: str, axes: Iterable[str]) -> None:
    if sorted(axes) != sorted(AXES):
        raise MalformedError(f"field {field!r}: {', '.join(axes) or 'none'}, not S, P, Q, R")


def _refuse_twice(field: str, names: Iterable[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise MalformedError(f"field {field!r}: {twice[0]!r} is given twice")


# ---- results on their way to the scorecard ---------------------------------------------------


def to_message(result: CellResult) -> str:
    """The result with its replicates, which scorecard.json leaves out, as JSON.

    Raises:
        TypeError: details that are no JSON values or numbers.
    """
    packed = base64.b64encode(np.asarray(result.replicates, _REPLICATE).tobytes()).decode()
    return canonical({"result": result_to_dict(result), "replicates": packed})


def as_delivered(result: CellResult) -> CellResult:
    """The result as `from_message` would give it back, for one that stays in its process."""
    rounded = np.asarray(result.replicates, _REPLICATE).astype(np.float64)
    return replace(result, replicates=rounded.tolist())


def from_message(text: str) -> CellResult:
    """The inverse of `to_message`; replicates have the precision of float32.

    Raises:
        MalformedError: (a ValueError) text that `to_message` did not write.
    """
    try:
        message = loads(text)
        if not isinstance(message, dict) or message.keys() != {"result", "replicates"}:
            raise MalformedError("it has other fields than result and replicates")
        packed = base64.b64decode(message["replicates"], validate=True)
        replicates = np.frombuffer(packed, _REPLICATE).astype(np.float64)
        result = result_from_dict(message["result"])
    except (TypeError, ValueError) as error:
        raise MalformedError(f"not a cell's result: {error}") from None
    return replace(result, replicates=replicates.tolist())


def own_to_message(check: OwnCheck) -> str:
    """A claim of a user's own test, as JSON."""
    return canonical(
        {name: getattr(check, name) for name in _OF_CLAIM}
        | {"result": result_to_dict(check.result)}
    )


def own_from_message(text: str) -> OwnCheck:
    """The inverse of `own_to_message`."""
    message = loads(text)
    return OwnCheck(**message | {"result": result_from_dict(message["result"])})


# ---- results as flat objects -----------------------------------------------------------------


def result_to_dict(result: CellResult) -> dict[str, Any]:
    """A flat object of plain JSON values; as used in scorecard.json and between processes.

    Replicates are no part of it. Numbers that are not finite become null, which no verdict
    survives: `score` treats a verdict without its number as an error.

    Raises:
        TypeError: details that are no JSON values or numbers.
    """
    wire: dict[str, Any] = _plain(result, lambda number: number if math.isfinite(number) else None)
    for name in ("interval", "p"):
        pair = wire[name]
        wire[name] = None if pair is None or None in pair else [float(bound) for bound in pair]
    for name in ("score", "value", "threshold", "credit"):
        wire[name] = None if wire[name] is None else float(wire[name])
    cell = wire.pop("cell")
    state = cell["state"]
    if state["adaptation"] is None:  # most have none
        del state["adaptation"]
    return {**wire, **cell, **state, **_derived(result.cell)}


def result_from_dict(wire: object) -> CellResult:
    """The inverse of `result_to_dict`.

    Raises:
        MalformedError: (a ValueError) fields missing, unknown, of another type or contradictory.
    """
    result = validated(CellResult, _nested(wire, ""))
    _refuse_other_cell(wire, result.cell, "")
    _refuse_unjudged(result, "")
    return result


def _derived(cell: Cell) -> dict[str, Any]:
    return dict(zip(_DERIVED, (cell.id, cell.axis, cell.state.name, cell.is_control), strict=True))


def _nested_all(wires: object, field: str, nested: Callable[[Any, str], object]) -> list[object]:
    if not isinstance(wires, list):
        raise MalformedError(f"field {field!r} is not a list")
    return [nested(wire, f"{field}[{i}].") for i, wire in enumerate(wires)]


def _nested(wire: object, place: str) -> object:
    """The flat object as `CellResult` is built; what follows from the cell is left out."""
    if not isinstance(wire, dict):
        return wire
    for name in ("cell", "replicates"):
        if name in wire:
            raise MalformedError(f"unknown field '{place}{name}'")
    for name in _DERIVED:
        if name not in wire:
            raise MalformedError(f"field '{place}{name}' is missing")
    cell = _only(_OF_CELL, wire) | {"state": {"adaptation": None} | _only(_OF_STATE, wire)}
    return _but(_FLAT, wire) | {"cell": cell, "replicates": ()}


def _claim(wire: object, place: str) -> object:
    """A result's flat object with a claim's own fields, as `OwnCheck` is built."""
    if not isinstance(wire, dict):
        raise MalformedError(f"field '{place[:-1]}' is no JSON object")
    return _only(_OF_CLAIM, wire) | {"result": _nested(_but(_OF_CLAIM, wire), place)}


def _only(names: Iterable[str], wire: Mapping[str, Any]) -> dict[str, Any]:
    return {name: wire[name] for name in names if name in wire}


def _but(names: Iterable[str], wire: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wire.items() if name not in names}


def _refuse_others(field: str, wires: Any, results: Sequence[CellResult]) -> None:
    for i, result in enumerate(results):
        _refuse_other_cell(wires[i], result.cell, f"{field}[{i}].")
        _refuse_unjudged(result, f"{field}[{i}].")


def _refuse_unjudged(result: CellResult, place: str) -> None:
    """Whoever counts flags would take an image without one for safe."""
    if result.cell.row.unit == "rate":
        for i, image in enumerate(result.images):
            if image.flagged is None:
                raise MalformedError(f"field '{place}images[{i}].flagged' is null")


def _refuse_other_cell(wire: Any, cell: Cell, place: str) -> None:
    for name, derived in _derived(cell).items():
        if wire[name] != derived or type(wire[name]) is not type(derived):
            raise MalformedError(f"field '{place}{name}' is {wire[name]!r}, not {derived!r}")


def _cell(result: CellResult) -> dict[str, Any]:
    wire = result_to_dict(result)
    for name in ("score", "value", "interval", "threshold", "credit"):
        wire[name] = _plain(wire[name], _six_decimals)
    for name in ("details", "p"):
        wire[name] = _plain(wire[name], lambda x: float(f"{x:.{_DETAIL_DIGITS}g}") + 0.0)
    return wire


# ---- plain values ----------------------------------------------------------------------------


def _rounded(whole: Any, but: Sequence[str] = ()) -> dict[str, Any]:
    kind: Any = type(whole)
    values = {name: getattr(whole, name) for name in _names(kind) if name not in but}
    return {k: v if k in _AS_THEY_ARE else _plain(v, _six_decimals) for k, v in values.items()}


def _plain(value: Any, number: Number) -> Any:
    """JSON values of dataclasses, containers and Python's and numpy's numbers."""
    kind: Any = type(value)
    if kind in _JSON:
        return value
    if kind is float:
        return number(value)
    if hasattr(kind, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name), number) for name in _names(kind)}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return number(float(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item, number) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, number) for item in value]
    if isinstance(value, np.bool_):
        return bool(value)
    raise TypeError(f"a result's details hold {type(value).__name__}, which is not JSON")


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.compare)


def _six_decimals(number: float) -> float:
    return round(number, DECIMALS) + 0.0  # no negative zero


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return _line(value)
    return "[\n" + ",\n".join(f"  {_line(item)}" for item in value) + "\n ]"


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)
