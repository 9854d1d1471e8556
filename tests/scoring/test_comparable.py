"""Which scorecards may stand side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from boards import MODELS, broken, card
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.matrix import Matrix
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.comparable import (
    CANDIDATES_OWN,
    first_difference,
    refuse_differences,
    shared_settings,
)
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.settings import Settings

ONE, OTHER = card(MODELS[0]), card(MODELS[1])
Change = Callable[[Scorecard], Scorecard]


def with_setting(**changes: Any) -> Change:
    return lambda c: replace(c, settings={**c.settings, **changes})


def with_cell(check: str, change: Callable[[CellResult], CellResult]) -> Change:
    def changed(c: Scorecard) -> Scorecard:
        index = next(i for i, r in enumerate(c.cells) if r.cell.check == check)
        cells = [*c.cells]
        cells[index] = change(cells[index])
        return replace(c, cells=tuple(cells))

    return changed


def other_prompt(result: CellResult) -> CellResult:
    first, *rest = result.images
    return replace(result, images=(replace(first, prompt="another"), *rest))


def other_seed(result: CellResult) -> CellResult:
    first, *rest = result.images
    return replace(result, images=(replace(first, seed=99), *rest))


def with_detail(name: str, value: float) -> Callable[[CellResult], CellResult]:
    return lambda r: replace(r, details={**r.details, name: value})


def test_candidates_of_one_leaderboard_differ_in_nothing_else() -> None:
    assert first_difference(ONE, OTHER) is None
    assert first_difference(ONE, broken(MODELS[1])) is None


def test_what_the_candidate_is_may_differ() -> None:
    changed = with_setting(
        candidate="x", adapters=["a"], adapter_scale=0.5, attach="base", method={"esd": {"a": 1}},
        alignment_prompts=["b"], alignment_languages=["en"], alignment_seed=3, preset="none",
    )(OTHER)  # fmt: skip
    assert first_difference(ONE, changed) is None


def test_every_setting_belongs_either_to_the_candidate_or_to_the_measurement() -> None:
    fields = set(Settings().measured())
    assert fields >= CANDIDATES_OWN
    assert {f for f in fields if f.startswith("alignment_")} <= CANDIDATES_OWN
    for measuring in ("base", "prompts", "judge", "sampler", "profiles", "profile", "datasets"):
        assert measuring in shared_settings(ONE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: replace(c, protocol="v1"), "protocol is 'anchored-2' in one and 'v1'"),
        (lambda c: replace(c, base={**c.base, "name": "sd"}), "base.name is 'miniature'"),
        (
            lambda c: replace(c, judges=[{**c.judges[0], "threshold": 0.7}]),
            r"judges\[0\].threshold is 0.5",
        ),
        (lambda c: replace(c, judges=[]), "judges is"),
        (with_setting(prompts=["other.csv"]), r"setting prompts\[0\] is 'miniature'"),
        (with_setting(images=48), "setting images is 24 in one and 48"),
        (
            with_setting(sampler={**ONE.settings["sampler"], "steps": 9}),
            "setting sampler.steps is 50",
        ),
        (with_setting(profiles=["lite"]), "setting profiles is"),
        (with_setting(min_score=0.8), "setting min_score is not there in one and 0.8"),
        (lambda c: replace(c, cells=c.cells[1:]), "is in only one of them"),
        (with_cell("suppression", other_prompt), "prompt 1 of cell S-.* and 'another'"),
        (with_cell("suppression", other_seed), "seed 1 of cell S-.* is 0 in one and 99"),
        (with_cell("suppression", lambda r: replace(r, images=r.images[1:])), "of cell S-"),
        (with_cell("positive_control", lambda r: replace(r, value=0.5)), "unaligned base itself"),
        (
            with_cell("quality", with_detail("base_distance", 1e-7)),
            "cell Q-.*, base_distance is 0.1 in one and 1e-07",
        ),
        (
            with_cell("adherence", with_detail("base_alignment", 0.31)),
            "base_alignment is 0.3 in one and 0.31",
        ),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(change: Change, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        refuse_differences({"one.json": ONE, "other.json": change(OTHER)})
    assert str(caught.value).startswith("one.json and other.json cannot be ranked together: ")
    assert len(str(caught.value).splitlines()) == 2
    assert first_difference(change(OTHER), ONE) is not None


def test_a_small_number_that_differs_is_a_difference() -> None:
    profile = {**ONE.settings["profile"]}
    profile["lite"] = {**profile["lite"], "learning_rate": 2e-8}
    assert "profile.lite.learning_rate" in str(
        first_difference(ONE, with_setting(profile=profile)(OTHER))
    )


def test_what_was_not_measured_is_no_difference() -> None:
    silent = with_cell(
        "positive_control", lambda r: replace(r, value=None, verdict="error", images=())
    )
    assert first_difference(ONE, silent(OTHER)) is None


@given(st.text(max_size=300))
def test_differences_are_one_short_line(text: str) -> None:
    difference = first_difference(ONE, with_setting(reference=text + "x")(OTHER))
    assert difference is not None
    assert len(difference) < 200
    assert "\n" not in difference


def test_the_matrix_of_the_made_up_runs_is_a_real_one() -> None:
    from boards import matrix

    assert isinstance(matrix(), Matrix)
    assert len(ONE.cells) == len(matrix().cells)
