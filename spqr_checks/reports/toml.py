"""Settings as TOML text, so that a report can say how to repeat its run."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dumps(values: Mapping[str, Any], table: str) -> str:
    """The table's text. None is left out, since TOML has no word for it.

    Raises:
        ValueError: what TOML cannot say (None in a list, numbers that are not finite, other types).
    """
    plain = {k: v for k, v in values.items() if v is not None and not isinstance(v, Mapping)}
    tables = {k: v for k, v in values.items() if isinstance(v, Mapping)}
    lines = [f"[{table}]", *(line(key, value) for key, value in plain.items())]
    below = [dumps(inner, f"{table}.{_key(key)}") for key, inner in tables.items()]
    return "\n\n".join(["\n".join(lines), *below])


def shown(values: Mapping[str, Any], table: str = "tool.spqr") -> list[str]:
    """The table's lines for a page; a sentence where TOML cannot say them."""
    if not values:
        return []
    try:
        return dumps(values, table).splitlines()
    except ValueError as error:
        return [f"these settings cannot be written as TOML: {error}"]


def line(key: str, value: Any) -> str:
    """``key = value`` on one line: mappings become inline tables, decimals keep their digits.

    Raises:
        ValueError: as `dumps`.
    """
    return f"{_key(key)} = {_value(value)}"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, Decimal) and value.is_finite():
        return f"{value:f}"
    if isinstance(value, Mapping):
        known = ((k, v) for k, v in value.items() if v is not None)
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in known) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_value, value)) + "]"
    raise ValueError(f"TOML has no word for {value!r}")


def _text(text: str) -> str:
    """A basic string, with everything that does not show on a page as an escape."""
    return '"' + "".join(map(_char, text)) + '"'


def _char(char: str) -> str:
    if char in '"\\':
        return json.dumps(char)[1:-1]
    if unicodedata.category(char) == "Cs":
        raise ValueError("TOML has no word for half a surrogate pair")
    if unicodedata.category(char)[0] == "C" or char in "\u2028\u2029":
        return f"\\U{ord(char):08x}"
    return char
