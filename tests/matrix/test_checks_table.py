"""The table of checks alone names them, and everything beside it agrees with it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import spqr_checks
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.matrix import (
    AFTER_TUNING,
    AXES,
    CHECKS,
    UNDER_ATTACK,
    Axis,
    Check,
    Matrix,
    Sizes,
    Tuning,
)
from spqr_checks.prompts.prompt import ALL, PromptGroup
from spqr_checks.runtime.run import Run
from spqr_checks.settings import Margins, Thresholds, load_settings

PACKAGE = Path(spqr_checks.__file__).parent
SUITES = ("tests_safety", "tests_utility", "tests_robustness")
SIZES = Sizes(harmful=24, lookalike=12, benign=48, gain=16)

# ---- which cells there are -------------------------------------------------------------------

CONCEPTS = (
    "banner", "bolt", "green_moon", "hazard", "purple_heart", "red_triangle", "target",
    "yellow_star",
)  # fmt: skip
PLACES = tuple(f"{concept}-{language}-photo" for concept in CONCEPTS for language in ("en", "hi"))
MINIATURE = (
    *(f"S.positive_control-{place}-base" for place in PLACES),
    *(f"S.negative_control-{place}-base" for place in PLACES),
    *(f"S-{place}-aligned" for place in PLACES),
    *(f"P.over_refusal-{place}-aligned" for place in PLACES),
    "P-all-en-photo-aligned",
    "P-all-hi-photo-aligned",
    "Q-all-all-all-aligned",
    "R.ceiling_control-all-all-all-base.lite.pastel.0",
    "R.gain_control-all-all-all-lite.pastel.0",
    "R-all-all-all-lite.pastel.0",
    *(f"S-{place}-lite.pastel.0" for place in PLACES),
)


def run(folder: Path) -> Run:
    return Run.from_settings(load_settings(folder, {"store": str(folder / ".spqr")}))


def test_the_miniature_has_the_cells_that_it_always_had(tmp_path: Path) -> None:
    assert tuple(cell.id for cell in run(tmp_path).matrix.cells) == MINIATURE


def spelled_out(groups: Sequence[PromptGroup], tunings: Sequence[Tuning]) -> Iterator[str]:
    """The ids of a matrix, check by check, without the table."""
    ordered = sorted(set(groups))
    harmful, lookalike, benign = (
        [f"{g.concept}-{g.language}-{g.domain}" for g in ordered if g.kind == kind]
        for kind in ("harmful", "lookalike", "benign")
    )
    yield from (f"S.positive_control-{place}-base" for place in harmful)
    yield from (f"S.negative_control-{place}-base" for place in lookalike)
    yield from (f"S-{place}-aligned" for place in harmful)
    yield from (f"P.over_refusal-{place}-aligned" for place in lookalike)
    yield from (f"P-{place}-aligned" for place in benign)
    if benign:
        yield "Q-all-all-all-aligned"
    for tuning in tunings:
        yield f"R.ceiling_control-all-all-all-base.{tuning.name}"
        yield f"R.gain_control-all-all-all-{tuning.name}"
        yield f"R-all-all-all-{tuning.name}"
        yield from (f"S-{place}-{tuning.name}" for place in harmful)


prompt_groups = st.builds(
    PromptGroup,
    st.sampled_from(["harmful", "lookalike", "benign"]),
    st.sampled_from(["hazard", "bolt", ALL]),
    st.sampled_from(["en", "hi"]),
    st.sampled_from(["photo", "flat"]),
)
fine_tunings = st.builds(
    Tuning, st.sampled_from(["lite", "standard"]), st.sampled_from(["dots"]), st.integers(0, 3)
)


@given(st.lists(prompt_groups, max_size=9), st.lists(fine_tunings, max_size=3, unique=True))
def test_the_table_lists_the_cells_in_the_order_of_states_and_checks(
    groups: list[PromptGroup], tunings: list[Tuning]
) -> None:
    cells = Matrix.build(groups, {}, tunings, SIZES).cells
    assert [cell.id for cell in cells] == list(spelled_out(groups, tunings))


# ---- what stands beside the table ------------------------------------------------------------


def test_every_name_has_a_row() -> None:
    assert set(CHECKS) == set(get_args(Check))
    assert tuple(AXES) == get_args(Axis)


def test_every_check_has_a_function_that_measures_it(tmp_path: Path) -> None:
    assert set(MeasuringSession(run(tmp_path)).checks.functions) == set(CHECKS)


def test_every_check_has_one_test_in_the_suites() -> None:
    marked = [
        name
        for suite in SUITES
        for path in sorted((PACKAGE.parent / suite).glob("test_*.py"))
        for name in literals(path)
        if name in CHECKS
    ]
    assert sorted(marked) == sorted(CHECKS)


def test_every_axis_has_one_check_of_its_own_letter() -> None:
    assert [
        sum(row.own_letter and row.axis == axis and not row.control for row in CHECKS.values())
        for axis in AXES
    ] == [1] * len(AXES)


def test_checks_rest_on_controls_and_other_controls_say_what_is_wrong() -> None:
    resting = {control for row in CHECKS.values() for control in row.controls}
    assert all(CHECKS[name].control for name in resting)
    for name, row in CHECKS.items():
        assert bool(row.fault) == (row.control and name not in resting), name


def test_every_threshold_and_margin_is_a_setting() -> None:
    for row in CHECKS.values():
        assert row.limit.field in Thresholds.model_fields
    assert list(Margins.model_fields) == list(AXES)


# ---- nobody else names a check ---------------------------------------------------------------

DISPATCH = (
    "checks/suppression.py",
    "checks/adherence.py",
    "checks/drift.py",
    "checks/attacks.py",
)
"""Name the checks that they measure; `matrix` holds the table."""
A_SETTING = "the setting that chooses a score of prompt adherence, which has the name of a check"
AN_OPTION = "an option of the command line, for a probability or the value of an axis"
A_QUANTITY = "names a quantity in the text of an error"
A_CLAIM = "a quantity that users' own tests make a claim about"
ALLOWED = {
    ("runtime/orders.py", "adherence"): A_SETTING,
    ("runtime/units.py", "adherence"): A_SETTING,
    (
        "runtime/engines/payloads.py",
        "adherence",
    ): A_SETTING,
    ("runtime/engines/ray.py", "adherence"): A_SETTING,
    ("cli/commands.py", "quality"): AN_OPTION,
    ("cli/judge.py", "P"): AN_OPTION,
    ("pytest_plugin/options.py", "P"): AN_OPTION,
    ("pytest_plugin/options.py", "adherence"): A_SETTING,
    ("doctor/choices.py", "adherence"): A_SETTING,
    ("preflight.py", "adherence"): A_SETTING,
    ("metrics/adherence/__init__.py", "adherence"): A_SETTING,
    ("miniature/training/build.py", "quality"): "a key of the record of the miniature's training",
    **{("api.py", check): A_CLAIM for check in ("suppression", "drift", "adherence", "quality")},
    **{
        ("checks/own_checks.py", check): A_CLAIM
        for check in ("suppression", "positive_control", "adherence")
    },
    ("scoring/protocols.py", "drift"): A_QUANTITY,
    ("reports/drifts.py", "drift"): "a column of its table",
    **{("scoring/serialize.py", axis): "keys of scorecard.json" for axis in AXES},
}


@cache
def literals(path: Path) -> frozenset[str]:
    """All string literals of a module but its documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def naming(word: str) -> set[str]:
    """Modules that hold the word as a literal."""
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if not path.is_relative_to(PACKAGE / "matrix") and word in literals(path)
    }


@pytest.mark.parametrize("word", [*CHECKS, *AXES, AFTER_TUNING, *UNDER_ATTACK])
def test_checks_and_axes_are_named_in_the_table_and_where_they_are_measured_only(word: str) -> None:
    allowed = {path for path, known in ALLOWED if known == word}
    assert naming(word) - set(DISPATCH) - allowed == set()


def test_no_check_is_measured_in_two_modules() -> None:
    for check in CHECKS:
        assert len(naming(check) & set(DISPATCH)) == 1, check
