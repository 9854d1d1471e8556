"""leaderboard.json, version 1: equal leaderboards give equal bytes, and what is read is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args

from spqr_checks.errors import UserError
from spqr_checks.scoring.axes import AXES
from spqr_checks.scoring.board import VERSION, AxisScore, Comparison, Leaderboard, Row
from spqr_checks.scoring.breakdown import Category, Drift, Rate
from spqr_checks.scoring.cell_result import Verdict
from spqr_checks.scoring.fields import Fields, MalformedError, read_object
from spqr_checks.scoring.run_protocols import ProtocolScore
from spqr_checks.scoring.scorecard import Gate

KIND = "spqr-checks leaderboard"
_DECIMALS = 6
_VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
_AS_THEY_ARE = ("base", "judges", "settings", "level")


def to_json(board: Leaderboard) -> str:
    """The file's text: sorted keys, ASCII, measured numbers rounded to 6 decimals."""
    document = asdict(board) | {"kind": KIND}
    rounded = {k: v if k in _AS_THEY_ARE else _rounded(v) for k, v in document.items()}
    return json.dumps(rounded, sort_keys=True, indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Leaderboard:
    """The leaderboard of a file's text; what `to_json` writes is read back exactly.

    Raises:
        UserError: text that is no JSON, another version, or fields missing, unknown or of
            another type.
    """
    try:
        return read_object(json.loads(text, parse_constant=_refuse), "leaderboard", _read)
    except MalformedError as error:
        raise UserError(f"not a leaderboard of this program: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"leaderboard: not valid JSON: {error}") from None


def _refuse(constant: str) -> float:
    raise MalformedError(f"{constant} is not a number of JSON")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS) + 0.0  # no negative zero
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _read(fields: Fields) -> Leaderboard:
    fields.choice("kind", (KIND,))
    version = fields.integer("version")
    if version != VERSION:
        raise MalformedError(f"version {version} cannot be read; this program reads {VERSION}")
    return Leaderboard(
        version=version,
        protocol=fields.text("protocol"),
        level=fields.number("level"),
        draws=fields.integer("draws"),
        seed=fields.integer("seed"),
        rows=fields.each("rows", _row),
        comparisons=fields.each("comparisons", _comparison),
        base=fields.mapping("base"),
        judges=fields.list("judges"),
        settings=fields.mapping("settings"),
    )


def _row(fields: Fields) -> Row:
    axes = fields.by_name("axes", _axis)
    if sorted(axes) != sorted(AXES):
        raise MalformedError(f"axes are {', '.join(axes) or 'none'}, not S, P, Q, R")
    return Row(
        name=fields.text("name"),
        place=_optional_integer(fields, "place"),
        ranks=_ranks(fields),
        spqr=fields.optional_number("spqr"),
        spqr_raw=fields.optional_number("spqr_raw"),
        interval=fields.optional_pair("interval"),
        axes={name: axes[name] for name in AXES},
        reason=fields.text("reason"),
        gate=fields.optional("gate", _gate),
        categories=fields.by_name("categories", _category),
        drifts=fields.each("drifts", _drift),
        protocols=fields.by_name("protocols", _protocol),
        fingerprint=fields.text("fingerprint"),
    )


def _ranks(fields: Fields) -> tuple[int, int] | None:
    ranks = fields.any("ranks")
    if ranks is None:
        return None
    if not isinstance(ranks, list) or [type(rank) for rank in ranks] != [int, int]:
        raise MalformedError(f"ranks are {ranks!r}, not a pair of whole numbers")
    return ranks[0], ranks[1]


def _optional_integer(fields: Fields, name: str) -> int | None:
    value = fields.any(name)
    if value is not None and type(value) is not int:
        raise MalformedError(f"{name} is {value!r}, not a whole number")
    return value


def _axis(fields: Fields) -> AxisScore:
    return AxisScore(
        fields.optional_number("score"),
        fields.optional_number("raw"),
        fields.optional_pair("interval"),
    )


def _gate(fields: Fields) -> Gate:
    return Gate(fields.flag("passed"), tuple(map(str, fields.list("reasons"))))


def _category(fields: Fields) -> Category:
    return Category(
        fields.optional("released", _rate),
        fields.optional("tuned", _rate),
        fields.integer("unmeasured"),
    )


def _rate(fields: Fields) -> Rate:
    return Rate(fields.integer("flagged"), fields.integer("n"), _pair(fields, "interval"))


def _drift(fields: Fields) -> Drift:
    return Drift(
        profile=fields.text("profile"),
        dataset=fields.text("dataset"),
        seed=fields.integer("seed"),
        value=fields.optional_number("value"),
        interval=fields.optional_pair("interval"),
        threshold=fields.number("threshold"),
        verdict=fields.choice("verdict", _VERDICTS),
        n=fields.integer("n"),
        reason=fields.text("reason"),
    )


def _protocol(fields: Fields) -> ProtocolScore:
    numbers = {name: fields.optional_number(name) for name in ("spqr", *AXES)}
    return ProtocolScore(**numbers)


def _comparison(fields: Fields) -> Comparison:
    return Comparison(
        above=fields.text("above"),
        below=fields.text("below"),
        difference=fields.number("difference"),
        interval=fields.optional_pair("interval"),
        decided=fields.flag("decided"),
    )


def _pair(fields: Fields, name: str) -> tuple[float, float]:
    pair = fields.optional_pair(name)
    if pair is None:
        raise MalformedError(f"{name} is missing")
    return pair
