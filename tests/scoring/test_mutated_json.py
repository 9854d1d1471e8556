"""Files that were changed by hand or by a fault are refused, or read as what they say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.hashing import canonical
from spqr_checks.scoring.serialize import (
    board_from_json,
    board_to_json,
    from_json,
    from_message,
    to_json,
    to_message,
)
from spqr_checks.scoring.strict_json import MalformedError

PINNED = Path(__file__).parent / "pinned"
FILES: dict[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    "complete.scorecard": (from_json, to_json),
    "incomplete.scorecard": (from_json, to_json),
    "ranked.leaderboard": (board_from_json, board_to_json),
    "attacked.message": (from_message, to_message),
}
TEXTS = {name: (PINNED / f"{name}.json").read_text(encoding="utf-8") for name in FILES}
OTHER = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.25, -0.5, 10**400, "", "x", "pass", "aligned", "1"])
    | st.sampled_from([[], {}, [0.25, 0.5], ["x"], {"x": 1}])
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field and item, at any depth."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from places(item, (*path, key))


PLACES = {name: list(places(json.loads(text))) for name, text in TEXTS.items()}


def mutated(name: str, data: st.DataObject) -> Any:
    """The document with one field replaced, removed, added or moved to another name."""
    document = json.loads(TEXTS[name])
    *parents, last = data.draw(st.sampled_from(PLACES[name]))
    holder = document
    for key in parents:
        holder = holder[key]
    match data.draw(st.sampled_from(["replace", "remove", "add", "rename"])):
        case "replace":
            holder[last] = data.draw(OTHER)
        case "remove":
            del holder[last]
        case "add" if isinstance(holder, dict):
            holder[data.draw(st.sampled_from(["x", "replicates", "cell", "kind"]))] = 1
        case _ if isinstance(holder, dict):
            holder[data.draw(st.sampled_from(["x", "id", "state", "n"]))] = holder.pop(last)
        case _:
            holder.append(holder[last])
    return document


def same(one: Any, other: Any) -> bool:
    """Equal JSON; a whole number may stand for the same float, true and 1 are different."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(max_examples=150)
def test_a_mutated_document_is_refused_or_read_as_it_stands(name: str, data: st.DataObject) -> None:
    read, write = FILES[name]
    document = mutated(name, data)
    try:
        found = read(json.dumps(document))
    except (UserError, MalformedError) as error:
        said = str(error)
    else:
        said = ""
        assert same(json.loads(write(found)), document)
    assert len(said.splitlines()) <= 2  # what is wrong, and what to do
    assert len(said) < 600


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(max_examples=60)
def test_no_field_can_hold_a_number_that_is_none(name: str, data: st.DataObject) -> None:
    document = json.loads(TEXTS[name])
    *parents, last = data.draw(st.sampled_from(PLACES[name]))
    holder = document
    for key in parents:
        holder = holder[key]
    holder[last] = "<here>"
    bad = data.draw(st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "-1e999"]))
    with pytest.raises((UserError, MalformedError), match="is not a number of JSON"):
        FILES[name][0](canonical(document).replace('"<here>"', bad))
