"""The matrix: which cells exist and what they need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.matrix import ALIGNED, BASE, DESTROYED, Cell, Matrix, Sizes, State, Tuning
from spqr_checks.prompts.prompt import PromptGroup

SIZES = Sizes(harmful=24, lookalike=12, benign=48, gain=16)
LITE = Tuning("lite", "stripes", 0)
GROUPS = [
    PromptGroup("harmful", "hazard", "ar", "sketch"),
    PromptGroup("harmful", "hazard", "en", "sketch"),
    PromptGroup("lookalike", "hazard", "en", "sketch"),
    PromptGroup("benign", "all", "en", "sketch"),
]


def build(groups: list[PromptGroup] = GROUPS, tunings: tuple[Tuning, ...] = (LITE,)) -> Matrix:
    return Matrix.build(groups, {"hazard": "warnings"}, tunings, SIZES)


def test_the_id_names_axis_concept_language_domain_and_state() -> None:
    cell = Cell("suppression", State("aligned", LITE), "hazard", "warnings", "ar", "sketch")
    assert cell.id == "S-hazard-ar-sketch-lite.stripes.0"


def test_a_control_says_so_in_its_id() -> None:
    cell = Cell("positive_control", BASE, "red triangle", "signals", "en", "photo")
    assert cell.id == "S.positive_control-red_triangle-en-photo-base"
    assert cell.is_control


def test_every_harmful_group_is_measured_before_and_after_each_fine_tuning() -> None:
    matrix = build(tunings=(LITE, Tuning("standard", "stripes", 1)))
    states = {c.state.name for c in matrix.cells if c.check == "suppression"}
    assert states == {"aligned", "aligned+lite.stripes.0", "aligned+standard.stripes.1"}
    for state in states:
        cells = [c for c in matrix.cells if c.check == "suppression" and c.state.name == state]
        assert {c.language for c in cells} == {"ar", "en"}


def test_without_fine_tuning_there_is_no_robustness_cell() -> None:
    assert not [c for c in build(tunings=()).cells if c.axis == "R"]


def test_drift_compares_the_same_groups_before_and_after() -> None:
    matrix = build()
    (cell,) = [c for c in matrix.cells if c.check == "drift"]
    draws = matrix.draws(cell)
    before = [d.group for d in draws if d.state == ALIGNED]
    after = [d.group for d in draws if d.state == cell.state]
    assert before == after == list(matrix.select("harmful"))


def test_quality_is_measured_between_base_and_destroyed_generator() -> None:
    matrix = build()
    (cell,) = [c for c in matrix.cells if c.check == "quality"]
    assert {d.state for d in matrix.draws(cell)} == {BASE, ALIGNED, DESTROYED}


def test_suppression_and_its_positive_control_share_prompts_but_not_weights() -> None:
    matrix = build()
    cell = next(c for c in matrix.cells if c.check == "suppression")
    (control,) = matrix.control_of(cell)
    assert control in matrix.cells
    ((draw,), (control_draw,)) = matrix.draws(cell), matrix.draws(control)
    assert (draw.group, draw.n) == (control_draw.group, control_draw.n)
    assert (draw.state, control_draw.state) == (ALIGNED, BASE)


def test_every_control_that_a_cell_names_is_in_the_matrix() -> None:
    matrix = build()
    for cell in matrix.cells:
        for control in matrix.control_of(cell):
            assert control in matrix.cells


names = st.text("abc xyz-", min_size=1, max_size=8).filter(str.strip)
harmful_groups = st.builds(
    PromptGroup,
    st.sampled_from(["harmful", "lookalike"]),
    names.map(lambda s: " ".join(s.replace("-", "").split()) or "a"),
    st.sampled_from(["en", "hi"]),
    st.sampled_from(["photo", "flat"]),
)


@given(st.lists(harmful_groups, max_size=8), st.randoms())
def test_ids_are_unique_and_the_order_of_prompts_does_not_matter(
    groups: list[PromptGroup], rng: object
) -> None:
    import random

    matrix = build(groups)
    ids = [c.id for c in matrix.cells]
    assert len(ids) == len(set(ids))
    shuffled = list(groups)
    assert isinstance(rng, random.Random)
    rng.shuffle(shuffled)
    assert build(shuffled).cells == matrix.cells
