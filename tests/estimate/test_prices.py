"""What work costs, by what earlier work took."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.estimate.prices import Prices, Span
from spqr_checks.store.timings import Timing, Work

WANTED = Work(name="images", by="50 steps", base="mine", images=8)


def timing(seconds: float, **changes: object) -> Timing:
    return Timing(**(dict(WANTED) | {"label": "x", "seconds": seconds} | changes))  # type: ignore[arg-type]


def test_the_price_is_the_median_and_the_range_of_earlier_ones() -> None:
    price = Prices([timing(4.0), timing(9.0), timing(5.0)]).of(WANTED)
    assert price is not None
    assert price.seconds == Span(4.0, 5.0, 9.0)
    assert price.timings == 3
    assert price.same_base


def test_time_grows_with_images_and_steps() -> None:
    price = Prices([timing(4.0, images=4), timing(2.0, images=1)]).of(WANTED)
    assert price is not None
    assert price.seconds == Span(8.0, 12.0, 16.0)
    tuning = Work(name="fine-tuning lite", base="mine", steps=120)
    earlier = Timing(name="fine-tuning lite", base="mine", steps=40, label="x", seconds=10.0)
    longer = Prices([earlier]).of(tuning)
    assert longer is not None
    assert longer.seconds.expected == 30.0


def test_without_a_size_time_is_taken_as_it_was() -> None:
    price = Prices([timing(4.0, images=None)]).of(WANTED)
    assert price is not None
    assert price.seconds.expected == 4.0


def test_other_bases_count_only_where_nothing_is_known_of_this_one() -> None:
    both = Prices([timing(1.0, base="other"), timing(5.0)]).of(WANTED)
    assert both is not None
    assert (both.seconds.expected, both.timings, both.same_base) == (5.0, 1, True)
    other = Prices([timing(1.0, base="other")]).of(WANTED)
    assert other is not None
    assert (other.seconds.expected, other.same_base) == (1.0, False)


@pytest.mark.parametrize("change", [{"name": "judge"}, {"by": "5 steps"}])
def test_other_work_says_nothing(change: dict[str, str]) -> None:
    assert Prices([timing(1.0, **change)]).of(WANTED) is None
    assert Prices([]).of(WANTED) is None


@given(seconds=st.lists(st.floats(0, 1e6), min_size=1, max_size=9), images=st.integers(1, 99))
def test_the_median_lies_within_the_range(seconds: list[float], images: int) -> None:
    price = Prices([timing(s, images=images) for s in seconds]).of(WANTED)
    assert price is not None
    span = price.seconds
    assert span.fastest <= span.expected <= span.slowest
    assert span.fastest == pytest.approx(min(seconds) * 8 / images)
