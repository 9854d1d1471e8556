"""scorecard.json: exact round trips, stable bytes, and refusal of anything else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_runs import (
    LITE,
    STANDARD,
    all_measured,
    complete_runs,
    make_card,
    make_matrix,
    measured,
    not_measurable,
    replaced,
)

from spqr_checks.errors import UserError
from spqr_checks.hashing import canonical
from spqr_checks.matrix import ALIGNED, BASE, DESTROYED, Cell, Matrix, State
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.serialize import (
    from_json,
    result_from_dict,
    result_to_dict,
    to_json,
)
from spqr_checks.scoring.strict_json import MalformedError

MATRIX = make_matrix(tunings=(LITE, STANDARD))
CELL = "S-hazard_sign-en-photo-aligned"
TEXT = to_json(make_card(MATRIX, all_measured(MATRIX)))

texts = st.text(max_size=8)
cells = st.builds(
    Cell,
    st.sampled_from(["suppression", "positive_control", "adherence", "quality", "drift"]),
    st.sampled_from([BASE, ALIGNED, DESTROYED, State("aligned", LITE), State("base", STANDARD)]),
    texts,
    texts,
    texts,
    texts,
    st.none() | texts,
)


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    document = json.loads(TEXT)
    change(document)
    return json.dumps(document)


# ---- round trips -------------------------------------------------------------------------


@given(complete_runs(), st.booleans())
@settings(max_examples=40)
def test_a_scorecard_survives_the_round_trip(
    run: tuple[Matrix, list[CellResult]], whole: bool
) -> None:
    matrix, results = run
    text = to_json(make_card(matrix, results if whole else results[1:]))
    card = from_json(text)
    assert to_json(card) == text
    assert from_json(to_json(card)) == card


def test_what_is_read_is_what_was_written_up_to_six_decimals() -> None:
    card = make_card(MATRIX, all_measured(MATRIX, 2 / 3))
    back = from_json(to_json(card))
    assert back.spqr is not None
    assert back.spqr == pytest.approx(card.spqr, abs=5e-7)
    assert back.spqr == round(back.spqr, 6)
    assert [r.cell for r in back.cells] == [r.cell for r in card.cells]
    assert [r.images for r in back.cells] == [r.images for r in card.cells]
    assert back.gate == card.gate
    assert (back.candidate, back.settings) == (card.candidate, card.settings)


def test_an_incomplete_card_is_written_and_read_too() -> None:
    card = from_json(to_json(make_card(MATRIX, [])))
    assert not card.complete
    assert card.spqr is None
    assert len(card.missing) == len(MATRIX.cells)


@given(cells)
@settings(max_examples=60)
def test_a_cell_survives_the_round_trip_with_its_state(cell: Cell) -> None:
    assert result_from_dict(result_to_dict(not_measurable(cell))).cell == cell


@pytest.mark.parametrize("cell", MATRIX.cells, ids=lambda c: c.id)
def test_a_result_survives_the_way_through_canonical_json(cell: Cell) -> None:
    result = measured(cell, 2 / 3)
    assert result_from_dict(json.loads(canonical(result_to_dict(result)))) == result


def test_numbers_of_numpy_become_plain() -> None:
    result = measured(MATRIX.cells[0])
    details = {"a": np.float32(0.5), "b": np.int64(3), "c": (np.float64(0.25), {"d": True})}
    fields = result_to_dict(
        replace(result, value=np.float64(0.5), n=int(np.int64(7)), details=details)
    )
    assert json.loads(json.dumps(fields))["details"] == {"a": 0.5, "b": 3, "c": [0.25, {"d": True}]}
    with pytest.raises(TypeError, match="set"):
        result_to_dict(replace(result, details={"a": {1}}))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_become_null_and_never_a_pass(bad: float) -> None:
    results = replaced(all_measured(MATRIX), CELL, value=bad, score=bad, interval=(0.1, bad))
    sent = [result_from_dict(json.loads(canonical(result_to_dict(r)))) for r in results]
    card = make_card(MATRIX, sent)
    assert [m.id for m in card.missing] == [CELL]
    to_json(make_card(MATRIX, results))


# ---- the text ----------------------------------------------------------------------------


def test_the_layout_is_the_documented_one() -> None:
    document = json.loads(TEXT)
    assert list(document) == sorted(document)
    assert document["version"] == 2
    assert sorted(document["axes"]) == ["P", "Q", "R", "S"]
    assert sorted(document["axes"]["S"]) == [
        "cells",
        "errors",
        "failed",
        "inconclusive",
        "interval",
        "not_measurable",
        "passed",
        "raw",
        "score",
    ]
    assert sorted(document["protocols"]) == ["anchored-2", "v1", "v2-code", "v2-published"]
    cell = next(c for c in document["cells"] if c["state"] == "aligned+standard.shapes.v2.1")
    assert cell["tuning"] == {"profile": "standard", "dataset": "shapes.v2", "seed": 1}
    for name in ("id", "axis", "check", "concept", "category", "language", "domain", "attack"):
        assert name in cell
    for name in ("n", "value", "interval", "threshold", "unit", "verdict", "control", "score"):
        assert name in cell
    assert TEXT.isascii()
    assert TEXT.endswith("}\n")


def test_measured_numbers_are_rounded_and_settings_are_not() -> None:
    results = replaced(all_measured(MATRIX), CELL, value=1 / 3, details={"kid": 1.23456789012e-7})
    document = json.loads(to_json(make_card(MATRIX, results)))
    cell = next(c for c in document["cells"] if c["id"] == CELL)
    assert cell["value"] == 0.333333
    assert cell["details"]["kid"] == 1.23456789e-7
    assert document["candidate"]["method"]["rate"] == 1e-7


def test_there_is_no_negative_zero() -> None:
    results = replaced(
        all_measured(MATRIX), "R-all-all-all-lite.general.0", value=-1e-9, details={"x": -0.0}
    )
    text = to_json(make_card(MATRIX, results))
    assert "-0.0" not in text


def test_a_lone_surrogate_in_a_prompt_can_still_be_written() -> None:
    results = all_measured(MATRIX)
    image = replace(next(r for r in results if r.cell.id == CELL).images[0], prompt="a\ud800b")
    text = to_json(make_card(MATRIX, replaced(results, CELL, images=(image,))))
    assert text.encode("utf-8")
    assert to_json(from_json(text)) == text


# ---- refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1, "2", None, [2]])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(UserError, match="reads version 2"):
        from_json(edited(lambda d: d.update(version=version)))


@pytest.mark.parametrize(
    "text",
    ["", "{", TEXT[: len(TEXT) // 2], "\x00", '{"a": NaN}', '{"a": 1e999}', '{"a": 1, "a": 2}'],
)
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="scorecard"):
        from_json(text)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('"guidance": 1e999', "1e999 is not a number of JSON"),
        ('"guidance": NaN', "NaN is not a number of JSON"),
        ('"guidance": -Infinity', "-Infinity is not a number of JSON"),
        ('"guidance": 7.5, "guidance": 9.0', "'guidance' is given twice"),
    ],
)
def test_a_card_that_is_whole_but_for_one_ambiguous_number_is_refused(
    written: str, message: str
) -> None:
    assert TEXT.count('"guidance": 7.5') == 1
    with pytest.raises(UserError) as error:
        from_json(TEXT.replace('"guidance": 7.5', written))
    assert message in str(error.value)


def test_endless_nesting_is_refused() -> None:
    with pytest.raises(UserError, match="scorecard"):
        from_json("[" * 200_000)


@pytest.mark.parametrize("text", ["[]", "null", "1", '"x"', "{}"])
def test_json_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not a scorecard of this program"):
        from_json(text)


@pytest.mark.parametrize("field", sorted(json.loads(TEXT)))
def test_every_field_is_needed(field: str) -> None:
    with pytest.raises(UserError, match=f"field '{field}' is missing"):
        from_json(edited(lambda d: d.pop(field)))


@pytest.mark.parametrize("field", sorted(json.loads(TEXT)["cells"][0]))
def test_every_field_of_a_cell_is_needed(field: str) -> None:
    with pytest.raises(UserError, match=rf"field 'cells\[3\]\.{field}' is missing"):
        from_json(edited(lambda d: d["cells"][3].pop(field)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(extra=1), "unknown field 'extra'"),
        (lambda d: d["axes"]["S"].update(mean=1), "unknown field 'axes.S.mean'"),
        (lambda d: d["axes"].pop("R"), "not S, P, Q, R"),
        (lambda d: d["axes"].update(T=d["axes"]["S"]), "'axes.T.[key]': input should be 'S', 'P'"),
        (lambda d: d.update(spqr="0.9"), "'spqr': input should be a valid number"),
        (lambda d: d.update(spqr=True), "'spqr': input should be a valid number"),
        (lambda d: d.update(version=2.0), "'version': input should be a valid integer"),
        (lambda d: d.update(complete=1), "'complete': input should be a valid boolean"),
        (lambda d: d.update(cells={}), "'cells': input should be a valid tuple"),
        (lambda d: d.update(settings=[]), "'settings': input should be a valid dictionary"),
        (
            lambda d: d["gate"].update(reasons=[1]),
            "'gate.reasons[0]': input should be a valid string",
        ),
        (
            lambda d: d["axes"]["S"].update(cells=1.5),
            "'axes.S.cells': input should be a valid integer",
        ),
        (lambda d: d["axes"]["S"].update(interval=[1]), "'axes.S.interval[1]' is missing"),
        (
            lambda d: d["axes"]["S"].update(interval=[0, None]),
            "'axes.S.interval[1]': input should be a valid number",
        ),
        (
            lambda d: d["cells"][0].update(verdict="passed"),
            "'cells[0].verdict': input should be 'pass', 'fail'",
        ),
        (lambda d: d["cells"][0].update(origin="tuned"), "'cells[0].origin': input should be"),
        (lambda d: d["cells"][0].update(check=["drift"]), "'cells[0].check': input should be"),
        (lambda d: d["cells"][0].update(n=10**400, threshold=10**400), "'cells[0].threshold'"),
        (lambda d: d["cells"][0].update(id="S-other"), "field 'cells[0].id' is 'S-other', not"),
        (lambda d: d["cells"][0].update(axis="R"), "field 'cells[0].axis' is 'R', not 'S'"),
        (
            lambda d: d["cells"][0].update(state="aligned"),
            "field 'cells[0].state' is 'aligned', not 'base'",
        ),
        (
            lambda d: d["cells"][0].update(control=False),
            "field 'cells[0].control' is False, not True",
        ),
        (lambda d: d.update(complete=False), "'complete' contradicts 'missing'"),
        (
            lambda d: d.update(complete=False, missing=[{"id": "x", "reason": "y"}]),
            "an incomplete run has no SPQR",
        ),
        (lambda d: d["cells"].append(d["cells"][0]), "'cells': 'S.positive_control-hazard_sign"),
        (lambda d: d["cells"][0].update(replicates=[]), "unknown field 'cells[0].replicates'"),
        (lambda d: d["cells"][0].update(cell={}), "unknown field 'cells[0].cell'"),
        (lambda d: d["cells"].__setitem__(0, 1), "'cells[0]': input should be a dictionary"),
        (lambda d: d["cells"][6]["images"][0].pop("path"), "'cells[6].images[0].path' is missing"),
        (lambda d: d["gate"].update(reasons=["x"]), "field 'gate': it passed, against its reasons"),
        (lambda d: d.update(spqr=None), "field 'gate': it passed, against its reasons or without"),
    ],
)
def test_a_scorecard_that_was_tampered_with_is_refused(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    assert from_json(edited(lambda d: None)).gate.passed
    with pytest.raises(UserError) as error:
        from_json(edited(change))
    assert message in str(error.value)


def test_a_malformed_result_is_a_value_error() -> None:
    fields = result_to_dict(measured(MATRIX.cells[0]))
    with pytest.raises(MalformedError, match="unknown field 'extra'"):
        result_from_dict(fields | {"extra": 1})
    assert issubclass(MalformedError, ValueError)
