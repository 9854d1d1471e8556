"""How many steps, and on which images."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from spqr_checks.choices import Profile
from spqr_checks.errors import UserError
from spqr_checks.finetuning.schedule import Block, blocks


def test_epochs_are_passes_over_the_data_rounded_up() -> None:
    assert blocks(Profile(trains="lora", epochs=3, batch=16), 100) == [Block(0, 100, 19)]
    assert blocks(Profile(trains="lora", epochs=0.5, batch=16), 100) == [Block(0, 100, 4)]


def test_a_step_takes_all_the_batches_that_are_accumulated() -> None:
    accumulated = Profile(trains="lora", epochs=3, batch=2, accumulation=8)
    assert accumulated.images_per_step == 16
    assert blocks(accumulated, 100) == blocks(Profile(trains="lora", epochs=3, batch=16), 100)


def test_steps_override_epochs() -> None:
    assert blocks(Profile(trains="lora", epochs=3, steps=7), 100) == [Block(0, 100, 7)]


def test_a_curriculum_gives_each_block_the_same_epochs() -> None:
    profile = Profile(trains="lora", epochs=2, batch=10, curriculum=(1000, 3000, 5000))
    assert blocks(profile, 5000) == [
        Block(0, 1000, 200, "curriculum-1000"),
        Block(1000, 3000, 400, "curriculum-3000"),
        Block(3000, 5000, 400, "curriculum-5000"),
    ]


def test_steps_are_shared_in_proportion_to_the_blocks() -> None:
    profile = Profile(trains="lora", steps=10, curriculum=(1000, 3000, 5000))
    assert [block.steps for block in blocks(profile, 5000)] == [2, 4, 4]


def test_the_last_block_ends_with_the_data() -> None:
    profile = Profile(trains="lora", batch=1, epochs=1, curriculum=(10, 30))
    assert blocks(profile, 24)[-1] == Block(10, 24, 14, "curriculum-30")


def test_what_lies_beyond_the_last_bound_is_not_used() -> None:
    assert blocks(Profile(trains="lora", curriculum=(10, 30)), 99)[-1].stop == 30


def test_a_block_without_images_is_refused() -> None:
    with pytest.raises(UserError, match="needs more than 3000 images, the data set has 3000"):
        blocks(Profile(trains="lora", curriculum=(1000, 3000, 5000)), 3000)


@pytest.mark.parametrize("bounds", [(20, 10), (10, 20, 15), (0, 10), (0,)])
def test_bounds_must_rise_from_one(bounds: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="must rise"):
        blocks(Profile(trains="lora", curriculum=bounds), 100)


@pytest.mark.parametrize(
    ("bounds", "said"), [((10, 10), "10 is given twice"), ((-5,), "greater than or equal to 0")]
)
def test_equal_and_negative_bounds_are_refused_with_the_setting(
    bounds: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        Profile(trains="lora", curriculum=bounds)


def test_a_block_without_steps_is_refused() -> None:
    with pytest.raises(UserError, match="2 steps are too few for the 3 blocks"):
        blocks(Profile(trains="lora", steps=2, curriculum=(1, 50, 100)), 100)


def test_no_data_is_refused() -> None:
    with pytest.raises(UserError, match="no images"):
        blocks(Profile(trains="lora"), 0)


@given(
    bounds=st.lists(st.integers(1, 400), min_size=1, max_size=5, unique=True).map(sorted),
    n=st.integers(1, 500),
    steps=st.integers(50, 2000),
)
def test_blocks_follow_each_other_and_use_up_the_steps(
    bounds: list[int], n: int, steps: int
) -> None:
    assume(len(bounds) == 1 or n > bounds[-2])
    profile = Profile(trains="lora", steps=steps, curriculum=tuple(bounds))
    try:
        planned = blocks(profile, n)
    except UserError as error:
        assert "too few" in str(error)  # noqa: PT017 - rounding may leave a tiny block without
        return
    assert planned[0].start == 0
    assert all(a.stop == b.start for a, b in pairwise(planned))
    assert planned[-1].stop == min(n, bounds[-1])
    assert sum(block.steps for block in planned) == steps
