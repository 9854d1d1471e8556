"""Settings as TOML: what is written reads back."""

from __future__ import annotations

import tomllib
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.reports.toml import dumps, line

text = st.text(st.characters(exclude_categories=["Cs"]))
plain = (
    text
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=4,
)


@settings(deadline=None)
@given(st.dictionaries(text, values, max_size=5))
def test_settings_read_back_as_they_were(settings: dict[str, object]) -> None:
    document = dumps(settings, "tool.spqr")
    assert tomllib.loads(document) == {"tool": {"spqr": settings}}
    assert all(char == "\n" or char.isprintable() or char.isspace() for char in document)


def test_what_is_not_set_is_left_out() -> None:
    assert dumps({"a": None, "b": 1, "c": {"d": None}}, "t") == "[t]\nb = 1\n\n[t.c]"


@pytest.mark.parametrize("value", [[None], float("nan"), float("inf"), object(), "\ud800"])
def test_what_toml_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="TOML has no word"):
        dumps({"a": value}, "t")


def test_a_line_keeps_the_digits_of_decimals_and_writes_tables_inline() -> None:
    values = {"value": Decimal("0.10"), "tens": Decimal("1E+1"), "bounds": (Decimal("0.0"), 1)}
    text = line("S.x", values | {"none": None})
    assert text == '"S.x" = {value = 0.10, tens = 10, bounds = [0.0, 1]}'
    assert tomllib.loads(text)["S.x"] == {"value": 0.1, "tens": 10, "bounds": [0.0, 1]}
    with pytest.raises(ValueError, match="TOML has no word"):
        line("x", Decimal("NaN"))
