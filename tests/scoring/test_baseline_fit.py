"""Which earlier scorecard can be a baseline: measured alike, or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from boards import MODELS, broken
from resampled import MARGINS, cell, ids, template, with_cells, with_flags, with_settings

from spqr_checks.scoring.baseline.comparison import compare
from spqr_checks.scoring.baseline.fit import first_obstacle, moved_base, notes, plan_of
from spqr_checks.scoring.cell_result import CellResult, ImageRef
from spqr_checks.scoring.scorecard import Scorecard

RUN = template(24, ("hazard",))
CONTROL = "S.positive_control-hazard-en-photo-base"
P_EN, Q = "P-all-en-photo-aligned", "Q-all-all-all-aligned"
Change = Callable[[Scorecard], Scorecard]


def setting(**changes: Any) -> Change:
    return lambda c: with_settings(c, **changes)


def of_cell(where: str, change: Callable[[CellResult], CellResult]) -> Change:
    return lambda c: with_cells(c, [change(cell(c, where))])


def with_prompts(result: CellResult, prompt: str) -> CellResult:
    images = result.images or (ImageRef("x.png", "a", 0, False),)
    return replace(result, images=tuple(replace(i, prompt=prompt) for i in images))


def profile(**changes: Any) -> dict[str, Any]:
    profiles = RUN.settings["profile"]
    return {**profiles, "lite": profiles["lite"] | changes}


def test_a_run_fits_itself_and_every_other_candidate_measured_alike() -> None:
    assert first_obstacle(RUN, plan_of(RUN)) is None
    assert first_obstacle(RUN, plan_of(replace(RUN, candidate={"name": "other"}))) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: broken_like(c), "the baseline is an incomplete run: 2 cells are missing"),
        (
            lambda c: replace(c, protocol="v1"),
            "protocol is 'v1' in the baseline and 'anchored-2' in",
        ),
        (lambda c: replace(c, base={"recipe": {"files": {"unet": "x"}}}), "base.files.unet is 'x'"),
        (lambda c: replace(c, judges=[{**c.judges[0], "threshold": 0.7}]), "judges[0].threshold"),
        (lambda c: replace(c, judges=[]), "judges is []"),
        (setting(sampler={**RUN.settings["sampler"], "steps": 9}), "setting sampler.steps is 9"),
        (setting(distance="kid"), "setting distance is 'kid' in the baseline"),
        (setting(profile=profile(steps=7)), "setting profile.lite.steps is 7 in the baseline"),
        (setting(dataset_limit=5), "setting dataset_limit is 5 in the baseline"),
        (setting(level=95), "the settings of the baseline do not say the level"),
        (of_cell(P_EN, lambda r: with_prompts(r, "x")), None),
        (
            of_cell(ids(RUN)[0], lambda r: with_prompts(r, "x")),
            f"cell {ids(RUN)[0]} has other prompts in the baseline, and none in common",
        ),
    ],
)
def test_what_was_measured_otherwise_is_named(change: Change, words: str | None) -> None:
    obstacle = first_obstacle(change(RUN), plan_of(RUN))
    if words is None:
        assert obstacle is None
    else:
        assert obstacle is not None
        assert words in obstacle
        assert "\n" not in obstacle
        assert len(obstacle) < 220


def broken_like(of: Scorecard) -> Scorecard:
    unfinished = broken(MODELS[0])
    return replace(of, complete=False, missing=unfinished.missing)


@pytest.mark.parametrize("field", ["level", "sampler", "profile"])
def test_settings_that_are_not_there_are_no_match(field: str) -> None:
    silent = replace(RUN, settings={k: v for k, v in RUN.settings.items() if k != field})
    assert first_obstacle(silent, plan_of(RUN)) is not None
    assert first_obstacle(RUN, plan_of(silent)) is not None


@pytest.mark.parametrize(
    "change",
    [
        setting(thresholds={"unsafe": 0.5}, images=99, reference="./elsewhere", min_score=0.9),
        setting(candidate="x", prompts=["a.csv"], datasets=["b"], threads=7, mode="sequential"),
        setting(profile=RUN.settings["profile"] | {"other": {"trains": "lora"}}),
        lambda c: replace(c, base={**c.base, "name": "another path"}),
        lambda c: replace(c, cells=c.cells[:-1]),
    ],
)
def test_what_may_differ_is_no_obstacle(change: Change) -> None:
    assert first_obstacle(change(RUN), plan_of(RUN)) is None


def test_a_cell_of_the_baseline_that_this_run_lacks_is_named() -> None:
    fewer = replace(RUN, cells=RUN.cells[2:])
    obstacle = first_obstacle(RUN, plan_of(fewer))
    assert obstacle is not None
    assert "and 1 more is in the baseline, but not in this run" in obstacle
    assert first_obstacle(fewer, plan_of(RUN)) is None


# ---- the base ----------------------------------------------------------------------------------


def flagged(count: int) -> Callable[[CellResult], CellResult]:
    return lambda r: with_flags(r, [i < count for i in range(len(r.images))])


def detail(name: str, value: Any) -> Callable[[CellResult], CellResult]:
    return lambda r: replace(r, details={**r.details, name: value})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (of_cell(CONTROL, flagged(12)), "the rate of cell S.positive_control-hazard-en"),
        (of_cell(P_EN, detail("base_alignment", 0.25)), f"base_alignment of cell {P_EN} moved"),
        (of_cell(Q, detail("base_distance", 0.2)), f"base_distance of cell {Q} moved by 0.125"),
        (of_cell(Q, detail("destroyed_distance", 0.5)), "destroyed_distance of cell"),
    ],
)
def test_a_base_that_moved_by_more_than_the_margin_is_no_ruler(change: Change, what: str) -> None:
    (reason,) = moved_base(RUN, change(RUN), MARGINS)
    assert what in reason
    comparison = compare(RUN, change(RUN), MARGINS)
    assert not comparison.passed
    assert comparison.reasons == (f"cannot be compared: {reason}",)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c,
        of_cell(P_EN, detail("base_alignment", 0.301)),
        of_cell(Q, detail("base_distance", 0.11)),
        of_cell(P_EN, detail("base_alignment", "none")),
        of_cell(P_EN, lambda r: replace(r, n=99, details={"base_alignment": 0.1})),
        of_cell(CONTROL, lambda r: with_flags(with_prompts(r, "x"), [False] * len(r.images))),
    ],
)
def test_rounding_other_images_and_what_was_not_read_do_not_move_the_base(change: Change) -> None:
    assert list(moved_base(RUN, change(RUN), MARGINS)) == []


# ---- what people should know -------------------------------------------------------------------


def test_other_thresholds_and_references_are_noted() -> None:
    stricter = {**RUN.settings["thresholds"], "unsafe": 0.1}
    found = notes(RUN, with_settings(RUN, thresholds=stricter, reference="./b").settings)
    assert found == [
        "other thresholds than in the baseline: unsafe 0.2 -> 0.1",
        "setting reference is '' in the baseline and './b' in this run",
    ]
    assert notes(RUN, RUN.settings) == []
    assert notes(with_settings(RUN, thresholds="odd"), RUN.settings)
