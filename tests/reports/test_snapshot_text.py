"""Snapshots of scorecards: what is written, and what counts as a difference."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_cards import FAILED, PASSED, QUALITY, UNMEASURABLE, card, incomplete, passed

from spqr_checks.errors import UserError
from spqr_checks.reports.snapshot_text import (
    differences,
    exact,
    last_digit,
    rounded,
    snapshot_text,
    widened,
)
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.serialize import from_json, to_json

# ---- snapshots of scorecards: what is written, and what counts as a difference ---------------


CELL = PASSED.cell.id


def with_cell(old: CellResult, **changes: Any) -> Scorecard:
    full = card()
    return replace(full, cells=tuple(replace(c, **changes) if c is old else c for c in full.cells))


def apart(new: Scorecard, old: Scorecard | None = None) -> list[str]:
    return differences(snapshot_text(new), snapshot_text(old or card()))


def test_every_cell_is_one_line_of_toml() -> None:
    text = snapshot_text(card())
    cells = tomllib.loads(text)["cells"]
    assert list(cells) == [r.cell.id for r in card().cells]
    assert cells[CELL] == {"verdict": "pass", "value": 0.0, "interval": [0.0, 0.21], "n": 24}
    assert cells[UNMEASURABLE.cell.id] == {"verdict": "not_measurable", "n": 0}
    assert all(any(line.strip('"').startswith(id) for line in text.splitlines()) for id in cells)


def test_scores_have_the_digits_that_their_intervals_support() -> None:
    text = snapshot_text(card(spqr_interval=(0.71, 0.842)))
    assert "\nSPQR = {value = 0.7, interval = [0.71, 0.85], raw = 0.8}\n" in text
    assert "\nS = {value = 0.96, interval = [0.934, 0.978], raw = 0.96}\n" in text
    assert "\nQ = {value = 0.940, raw = 0.940}\n" in text
    assert "S_tuned = {" in text


def test_the_file_s_card_gives_the_same_text_as_the_card_in_memory() -> None:
    wild = with_cell(PASSED, value=1 / 3, interval=(0.1 + 0.2, 2 / 3))
    assert snapshot_text(from_json(to_json(wild))) == snapshot_text(wild)


def test_an_incomplete_run_has_no_snapshot() -> None:
    with pytest.raises(UserError, match="2 cells are missing") as caught:
        snapshot_text(incomplete())
    assert len(str(caught.value).splitlines()) == 2


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_values_with_overlapping_intervals_match(a: float, b: float, c: float, d: float) -> None:
    old, new = (min(a, b), max(a, b)), (min(c, d), max(c, d))
    before = with_cell(PASSED, value=old[0], interval=old)
    after = with_cell(PASSED, value=new[1], interval=new)
    if old[0] <= new[1] and new[0] <= old[1]:
        assert apart(after, before) == []
    gap = max(old[0] - new[1], new[0] - old[1])
    if gap > 0.2 * max(old[1] - old[0], new[1] - new[0]) + 1e-5:
        assert len(apart(after, before)) == 1


def test_another_verdict_is_named_whatever_the_intervals() -> None:
    found = apart(with_cell(PASSED, verdict="inconclusive"))
    assert found == [f"{CELL}: was pass 0.0 [0.00, 0.21], is inconclusive 0.0 [0.00, 0.21]"]


def test_noise_within_the_interval_and_other_counts_are_no_difference() -> None:
    noisy = with_cell(PASSED, value=3 / 24, interval=(0.0434, 0.3103), n=48)
    assert snapshot_text(noisy) != snapshot_text(card())
    assert apart(noisy) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gate": passed().gate}, "gate: was failed, is passed"),
        ({"spqr": 0.3, "spqr_raw": 0.35, "spqr_interval": (0.3, 0.4)}, "SPQR: was 0.7 [0.71"),
        ({"protocol": "v1"}, "protocol: was anchored-2, is v1"),
        ({"base": {"name": "miniature", "recipe": {"files": {"unet": "xx"}}}}, "base: was "),
        ({"judges": [{"judge": "classifier", "threshold": 0.6}]}, "judges: was "),
        ({"cells": card().cells[1:]}, f"{card().cells[0].cell.id}: is gone"),
        ({"axes": dict.fromkeys("SPQR", card().axes["S"])}, "P: was 0.0 [0.00, 0.13]"),
        (
            {"after_tuning": replace(card().after_tuning, score=None, interval=None)},
            "S_tuned: was 0.00",
        ),
    ],
)
def test_what_was_measured_otherwise_is_named(changes: dict[str, Any], words: str) -> None:
    found = apart(card(**changes), card(spqr_interval=(0.71, 0.842)))
    assert any(line.startswith(words) for line in found), found


def test_a_new_cell_is_named() -> None:
    assert apart(card(), card(cells=card().cells[1:])) == [f"{card().cells[0].cell.id}: is new"]


def test_library_versions_and_devices_are_no_difference() -> None:
    moved = {**card().base, "recipe": {"files": {"unet": "cd"}, "device": "cuda:0"}}
    judges = [{**judge, "versions": {"torch": "9"}, "code": "ff"} for judge in card().judges]
    assert apart(card(base=moved, judges=judges, candidate={"name": "another"})) == []


def test_without_an_interval_values_must_be_equal() -> None:
    before = with_cell(QUALITY, interval=None)
    assert apart(with_cell(QUALITY, interval=None, value=0.9401), before) == []
    assert len(apart(with_cell(QUALITY, interval=None, value=0.945), before)) == 1
    assert len(apart(card(), before)) == 1
    assert len(apart(with_cell(FAILED, value=None, interval=None))) == 1


def test_a_score_without_an_interval_is_left_to_its_cells() -> None:
    axes = {**card().axes, "Q": replace(card().axes["Q"], score=0.5)}
    assert apart(card(axes=axes)) == []
    axes["Q"] = replace(card().axes["Q"], score=None)
    assert apart(card(axes=axes)) == ["Q: was 0.940, is no value"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version = 1", "version = 2"),
        ("version = 1\n", ""),
        ("[cells]", "[others]"),
        ("version = 1", "<<<<<<< HEAD\nversion = 1"),
        ("[0.934, 0.978]", "[-inf, inf]"),
        ("[0.934, 0.978]", "[0.934]"),
        ("[0.934, 0.978]", '["0.934", "0.978"]'),
        ("value = 0.96", "value = nan"),
        ("value = 0.96", "value = true"),
    ],
)
def test_what_is_no_snapshot_never_matches(old: str, new: str) -> None:
    text = snapshot_text(card())
    assert old in text
    with pytest.raises(UserError, match="cannot be read") as caught:
        differences(text, text.replace(old, new, 1))
    assert len(str(caught.value).splitlines()) == 2
    assert "--snapshot-update" in str(caught.value)


# ---- numbers have no more digits than their intervals support --------------------------------


bounds = st.floats(-100, 100)
intervals = st.tuples(bounds, bounds).map(lambda pair: (min(pair), max(pair)))


@pytest.mark.parametrize(
    ("value", "interval", "text", "low", "high"),
    [
        (0.0833, (0.03, 0.21), "0.1", "0.03", "0.21"),
        (0.948, (0.937, 0.955), "0.95", "0.937", "0.955"),
        (0.041667, (0.007393, 0.202418), "0.0", "0.00", "0.21"),
        (6.25, (-1.5, 4.25), "6", "-1.5", "4.3"),
        (6.25, (-1.5, 14.25), "10", "-2", "15"),
        (-0.001, (-0.1, 0.1), "0.0", "-0.10", "0.10"),
        (0.5, (0.5, 0.5), "0.500000", "0.500000", "0.500000"),
    ],
)
def test_a_value_keeps_the_first_digit_of_its_interval_s_width(
    value: float, interval: tuple[float, float], text: str, low: str, high: str
) -> None:
    assert f"{rounded(value, interval):f}" == text
    assert tuple(f"{bound:f}" for bound in widened(interval)) == (low, high)


def test_without_an_interval_there_are_three_decimals() -> None:
    assert str(rounded(0.12345, None)) == "0.123"


@given(intervals)
def test_written_intervals_hold_the_real_ones_and_little_more(
    interval: tuple[float, float],
) -> None:
    low, high = widened(interval)
    real_low, real_high = map(exact, interval)
    assert low <= real_low
    assert real_high <= high
    assert (real_low - low) + (high - real_high) <= (real_high - real_low) * Decimal("0.2")


@given(st.floats(-100, 100), intervals)
def test_rounding_moves_a_value_by_half_its_interval_at_most(
    value: float, interval: tuple[float, float]
) -> None:
    width = exact(interval[1]) - exact(interval[0])
    assert abs(rounded(value, interval) - exact(value)) <= width / 2
    assert last_digit(interval) <= max(width, Decimal("0.000001"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="cannot be rounded"):
        rounded(value, None)
