"""scorecard.json, version 1: equal scorecards give equal bytes, and what is read is checked."""

from __future__ import annotations

import json
import math
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.scoring.axes import AXES, AxisSummary
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.completeness import Missing
from spqr_checks.scoring.fields import Fields, MalformedError, read_object
from spqr_checks.scoring.gate import Gate
from spqr_checks.scoring.own_check import OwnCheck
from spqr_checks.scoring.result_codec import read_result, result_from_dict, result_to_dict
from spqr_checks.scoring.run_protocols import ProtocolScore
from spqr_checks.scoring.scorecard import VERSION, Scorecard
from spqr_checks.scoring.worst import Worst

__all__ = ["from_json", "result_from_dict", "result_to_dict", "to_json"]

_DECIMALS = 6
_DETAIL_DIGITS = 9


def to_json(scorecard: Scorecard) -> str:
    """The file's text: sorted keys, ASCII, measured numbers rounded to 6 decimals.

    ``details`` keep nine significant digits instead, as a KID may be far below one. Candidate,
    base, judges and settings are written as they are: a rounded learning rate would be another.
    """
    document = {
        "version": scorecard.version,
        "complete": scorecard.complete,
        "missing": [{"id": m.id, "reason": m.reason} for m in scorecard.missing],
        "protocol": scorecard.protocol,
        "spqr": _rounded(scorecard.spqr),
        "spqr_raw": _rounded(scorecard.spqr_raw),
        "spqr_interval": None
        if scorecard.spqr_interval is None
        else _rounded(list(scorecard.spqr_interval)),
        "gate": {"passed": scorecard.gate.passed, "reasons": list(scorecard.gate.reasons)},
        "axes": {name: _axis(axis) for name, axis in scorecard.axes.items()},
        "after_tuning": _axis(scorecard.after_tuning),
        "worst": {name: _worst(worst) for name, worst in scorecard.worst.items()},
        "worst_concept": None
        if scorecard.worst_concept is None
        else _worst(scorecard.worst_concept),
        "protocols": {
            name: _rounded({"spqr": p.spqr, "S": p.S, "P": p.P, "Q": p.Q, "R": p.R})
            for name, p in scorecard.protocols.items()
        },
        "cells": [_cell(result) for result in scorecard.cells],
        "candidate": scorecard.candidate,
        "base": scorecard.base,
        "judges": scorecard.judges,
        "settings": scorecard.settings,
    }
    if scorecard.own:
        document["own_checks"] = [
            {"test": check.test, "claim": check.claim, **_cell(check.result)}
            for check in scorecard.own
        ]
    # one line for each field and each cell: short differences, and Python's fast encoder
    fields = (f" {_line(name)}: {_lines(document[name])}" for name in sorted(document))
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _lines(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return _line(value)
    return "[\n" + ",\n".join(f"  {_line(item)}" for item in value) + "\n ]"


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def from_json(text: str) -> Scorecard:
    """The scorecard of a file's text; what `to_json` writes is read back exactly.

    Raises:
        UserError: text that is no JSON, another version, fields missing, unknown or of another
            type, or parts that contradict each other.
    """
    try:
        document = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_unique
        )
        if isinstance(document, dict) and document.get("version", VERSION) != VERSION:
            raise UserError(
                f"scorecard: version {document['version']!r} cannot be read; "
                f"this program reads version {VERSION}"
            )
        return read_object(document, "scorecard", _read)
    except MalformedError as error:
        raise UserError(f"not a scorecard of this program: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"scorecard: not valid JSON: {error}") from None


def _axis(axis: AxisSummary) -> dict[str, Any]:
    return {
        "score": _rounded(axis.score),
        "raw": _rounded(axis.raw),
        "cells": axis.cells,
        "passed": axis.passed,
        "failed": axis.failed,
        "inconclusive": axis.inconclusive,
        "not_measurable": axis.not_measurable,
        "errors": axis.errors,
        "interval": None if axis.interval is None else _rounded(list(axis.interval)),
    }


def _worst(worst: Worst) -> dict[str, Any]:
    return {"id": worst.id, "value": _rounded(worst.value), "score": _rounded(worst.score)}


def _cell(result: CellResult) -> dict[str, Any]:
    fields = result_to_dict(result)
    for name in ("score", "value", "interval", "threshold"):
        fields[name] = _rounded(fields[name])
    for name in ("details", "p"):
        fields[name] = _shortened(fields[name])
    return fields


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS) + 0.0  # no negative zero
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _shortened(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DETAIL_DIGITS}g}") + 0.0
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    return [_shortened(item) for item in value] if isinstance(value, list) else value


def _read(fields: Fields) -> Scorecard:
    axes = fields.by_name("axes", _read_axis)
    if sorted(axes) != sorted(AXES):
        raise MalformedError(f"scorecard: axes are {', '.join(axes) or 'none'}, not S, P, Q, R")
    scorecard = Scorecard(
        version=fields.integer("version"),
        complete=fields.flag("complete"),
        missing=fields.each("missing", lambda f: Missing(f.text("id"), f.text("reason"))),
        protocol=fields.text("protocol"),
        spqr=fields.optional_number("spqr"),
        spqr_raw=fields.optional_number("spqr_raw"),
        spqr_interval=fields.optional_pair("spqr_interval"),
        gate=fields.one("gate", _read_gate),
        axes={name: axes[name] for name in AXES},
        after_tuning=fields.one("after_tuning", _read_axis),
        worst=fields.by_name("worst", _read_worst),
        worst_concept=fields.optional("worst_concept", _read_worst),
        protocols=fields.by_name("protocols", _read_protocol),
        cells=fields.each("cells", read_result),
        candidate=fields.mapping("candidate"),
        base=fields.mapping("base"),
        judges=fields.list("judges"),
        settings=fields.mapping("settings"),
        own=fields.each("own_checks", read_own_check) if fields.has("own_checks") else (),
    )
    _refuse_contradictions(scorecard)
    return scorecard


def read_own_check(fields: Fields) -> OwnCheck:
    """Reads a claim of a user's own test."""
    return OwnCheck(fields.text("test"), fields.text("claim"), read_result(fields))


def _refuse_contradictions(card: Scorecard) -> None:
    if card.complete != (not card.missing):
        raise MalformedError("scorecard: 'complete' contradicts 'missing'")
    if not card.complete and not (card.spqr is None and card.spqr_raw is None):
        raise MalformedError("scorecard: an incomplete run has no SPQR, but one is given")
    numberless = card.spqr is None and (card.cells or not card.own)
    if card.gate.passed and (card.gate.reasons or numberless):
        raise MalformedError("scorecard: the gate passed, against its reasons or without an SPQR")


def _read_gate(fields: Fields) -> Gate:
    reasons = fields.list("reasons")
    if not all(isinstance(reason, str) for reason in reasons):
        raise MalformedError("scorecard, gate: field 'reasons' is not a list of text")
    return Gate(fields.flag("passed"), tuple(reasons))


def _read_axis(fields: Fields) -> AxisSummary:
    return AxisSummary(
        score=fields.optional_number("score"),
        raw=fields.optional_number("raw"),
        cells=fields.integer("cells"),
        passed=fields.integer("passed"),
        failed=fields.integer("failed"),
        inconclusive=fields.integer("inconclusive"),
        not_measurable=fields.integer("not_measurable"),
        errors=fields.integer("errors"),
        interval=fields.optional_pair("interval"),
    )


def _read_worst(fields: Fields) -> Worst:
    return Worst(fields.text("id"), fields.number("value"), fields.number("score"))


def _read_protocol(fields: Fields) -> ProtocolScore:
    return ProtocolScore(
        spqr=fields.optional_number("spqr"),
        S=fields.optional_number("S"),
        P=fields.optional_number("P"),
        Q=fields.optional_number("Q"),
        R=fields.optional_number("R"),
    )


def _refuse(constant: str) -> float:
    raise MalformedError(f"{constant} is not a number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise MalformedError(f"the field {key!r} is given twice")
        fields[key] = value
    return fields
