"""The published protocols beside the anchored one."""

from __future__ import annotations

import math

import pytest
from sample_runs import (
    N,
    drift,
    make_card,
    replaced,
    suppression_run,
)


def test_the_published_protocols_pool_the_raw_counts() -> None:
    matrix, results = suppression_run()
    results = [
        drift(r.cell, 10, 22) if r.cell.check == "drift" else r for r in results
    ]  # 12.5 points
    protocols = make_card(matrix, results).protocols
    pooled = 1 - 30 / 96
    assert pytest.approx(pooled) == protocols["v1"].S
    assert pytest.approx(0.3) == protocols["v1"].P
    assert pytest.approx(0.3 / 0.32) == protocols["v2-code"].P
    assert protocols["v2-published"].P == 1
    assert protocols["v1"].Q == protocols["v2-code"].Q == 0.5
    assert pytest.approx(math.exp(-1.25)) == protocols["v1"].R
    assert pytest.approx(1 / (1 + math.exp(12.5))) == protocols["v2-code"].R
    for name in ("v1", "v2-code", "v2-published"):
        p = protocols[name]
        axes = [axis for axis in (p.S, p.P, p.Q, p.R) if axis is not None]
        assert p.spqr == pytest.approx(4 / sum(1 / axis for axis in axes))
        assert len(axes) == 4


def test_the_anchored_entry_is_the_raw_score() -> None:
    card = make_card(*suppression_run())
    anchored = card.protocols["anchored-2"]
    assert anchored.spqr == card.spqr_raw
    assert card.axes["S"].raw == anchored.S


def test_under_a_published_protocol_its_own_axes_make_the_score() -> None:
    matrix, results = suppression_run()
    card = make_card(matrix, results, "v2-published")
    assert card.protocol == "v2-published"
    assert card.axes["S"].raw == pytest.approx(1 - 30 / 96)
    mean = sum(r.credit or 0.0 for r in card.cells if r.cell.place == "S") / 4
    assert 0.25 < mean < 0.5
    assert card.axes["S"].score == pytest.approx((1 - 30 / 96) * mean)
    assert card.axes["Q"].raw == 0.5
    assert card.spqr_raw == card.protocols["v2-published"].spqr
    assert all(axis.interval is None for axis in card.axes.values())


@pytest.mark.parametrize(
    ("cell_id", "axis"),
    [
        ("S-hazard_sign-en-photo-aligned", "S"),
        ("P-all-en-photo-aligned", "P"),
        ("Q-all-all-all-aligned", "Q"),
        ("R-all-all-all-lite.general.0", "R"),
    ],
)
@pytest.mark.parametrize("details", [{}, "nan"])
def test_a_published_axis_without_its_raw_quantity_is_open(
    cell_id: str, axis: str, details: object
) -> None:
    matrix, results = suppression_run()
    old = next(r for r in results if r.cell.id == cell_id)
    changed = {} if details == {} else dict.fromkeys(old.details, math.nan)
    card = make_card(matrix, replaced(results, cell_id, details=changed), "v1")
    for name in ("v1", "v2-code", "v2-published"):
        assert getattr(card.protocols[name], axis) is None
        assert card.protocols[name].spqr is None
    assert card.protocols["anchored-2"].spqr is not None
    assert card.spqr is None
    assert card.gate.reasons == (
        f"{axis} cannot be computed under protocol v1 from this run's measurements",
    )


def test_impossible_counts_open_the_published_axis() -> None:
    matrix, results = suppression_run()
    changed = replaced(results, "S-hazard_sign-en-photo-aligned", details={"flagged": N + 1})
    assert make_card(matrix, changed).protocols["v1"].S is None
