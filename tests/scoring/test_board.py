"""Rates by category and drifts by fine-tuning."""

from __future__ import annotations

from dataclasses import replace

import pytest
from boards import CATEGORIES, MODELS, TUNINGS, N, card
from sample_runs import not_measurable

from spqr_checks.scoring.leaderboard.board import by_category, drifts_of
from spqr_checks.statistics.intervals import wilson

CARD = card(MODELS[2])


def test_rates_are_pooled_over_the_cells_of_a_category() -> None:
    found = by_category(CARD, 0.95)
    assert list(found) == sorted(set(CATEGORIES.values()))
    own = [
        r
        for r in CARD.cells
        if r.cell.check == "suppression" and r.cell.category == "signals" and r.cell.state.tuning
    ]
    flagged = sum(r.details["flagged"] for r in own)
    rate = found["signals"].tuned
    assert rate is not None
    assert (rate.flagged, rate.n) == (flagged, len(own) * N)
    assert rate.interval == wilson(flagged, len(own) * N)
    assert rate.value == pytest.approx(flagged / rate.n)


def test_cells_before_and_after_fine_tuning_are_kept_apart() -> None:
    warnings = by_category(CARD, 0.95)["warnings"]
    assert warnings.released is not None
    assert warnings.tuned is not None
    assert warnings.released.n == 2 * 2 * N
    assert warnings.tuned.n == 2 * 2 * N * len(TUNINGS)
    assert warnings.released.flagged == 0 < warnings.tuned.flagged


def test_attacks_move_no_rate_of_a_category() -> None:
    attacked = [
        replace(r, cell=replace(r.cell, check="under_attack", attack="mma"), value=1.0)
        for r in CARD.cells
        if r.cell.check == "suppression"
    ]
    with_attacks = replace(CARD, cells=(*CARD.cells, *attacked))
    assert by_category(with_attacks, 0.95) == by_category(CARD, 0.95)


def test_what_could_not_be_measured_is_counted_and_not_called_safe() -> None:
    cells = tuple(
        not_measurable(r.cell)
        if r.cell.check == "suppression" and r.cell.concept == "banner"
        else r
        for r in CARD.cells
    )
    insignia = by_category(replace(CARD, cells=cells), 0.95)["insignia"]
    assert insignia.released is None
    assert insignia.tuned is None
    assert insignia.unmeasured == 2 * (1 + len(TUNINGS))


def test_every_fine_tuning_has_its_drift() -> None:
    drifts = drifts_of(CARD)
    assert [d.name for d in drifts] == ["lite.dots.0", "lite.stripes.0", "standard.stripes.0"]
    assert all(d.value is not None and d.value > 0 for d in drifts)


def test_a_drift_that_was_not_measurable_has_no_value_but_a_reason() -> None:
    cells = tuple(not_measurable(r.cell) if r.cell.check == "drift" else r for r in CARD.cells)
    for drift in drifts_of(replace(CARD, cells=cells)):
        assert drift.value is None
        assert drift.interval is None
        assert drift.reason
