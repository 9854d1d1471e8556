"""Replicates: shared by prompt, honest at zero, and as wide as theory says."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.stats import beta, t

from spqr_checks.statistics import resampling
from spqr_checks.statistics.resampling import DRAWS, percentile_interval, rates, ratios, weights

PROMPTS = [f"prompt {i}" for i in range(40)]
ONCE = [0] * 40


def test_a_prompt_weighs_the_same_wherever_it_stands() -> None:
    there, here = weights(PROMPTS, ONCE), weights(PROMPTS[::-1], ONCE)
    assert (there == here[::-1]).all()
    assert (weights([*PROMPTS, "another"], [*ONCE, 0])[:40] == there).all()


def test_images_weigh_by_themselves_unless_prompts_are_the_sample() -> None:
    two = ONCE + [1] * 40
    alike, apart = (weights(PROMPTS * 2, two, by_prompt=chosen) for chosen in (True, False))
    assert (alike[:40] == alike[40:]).all()
    assert abs(np.corrcoef(apart[:40].ravel(), apart[40:].ravel())[0, 1]) < 0.05
    # what resampling adds for flags never seen is half a prompt in the one, half an image else
    assert alike.sum(0).mean() == pytest.approx(40, rel=0.05)
    assert apart.sum(0).mean() == pytest.approx(80, rel=0.05)


def test_more_seeds_leave_the_weights_of_the_first() -> None:
    few = weights(["one"] * 30, list(range(30)))
    assert len(np.unique(few[:, 0])) == 30
    assert (weights(["one"] * 60, list(range(60)))[:30] == few).all()


@pytest.mark.parametrize("count", [4, 8, 24])
def test_few_prompts_are_as_uncertain_as_students_t_says(count: int) -> None:
    names = PROMPTS[:count]
    values = np.linspace(0.2, 0.4, count)
    ones = np.ones(count)
    drawn = ratios(list(values), list(ones), weights(names, [0] * count, by_prompt=True))
    wanted = t.isf(0.025, count - 1) * values.std(ddof=1) / count**0.5
    assert 1.96 * drawn.std() == pytest.approx(wanted, rel=0.15)


def test_images_far_from_the_first_seed_have_weights_of_their_own_at_no_cost() -> None:
    near, far = ([first + step for step in range(30)] for first in (0, 10**9))
    tracemalloc.start()
    there = weights(["one"] * 30, far)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * 64 * DRAWS * 8
    assert there.mean() == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(there.ravel(), weights(["one"] * 30, near).ravel())[0, 1]) < 0.05
    assert (weights(["one"] * 60, far + [0] * 30)[:30] == there).all()


def test_rates_are_draws_from_the_beta_posterior_with_jeffreys_prior() -> None:
    flagged = [True] * 3 + [False] * 37
    drawn = rates(flagged, weights(PROMPTS, ONCE), "a cell")
    expected = beta(3.5, 37.5)
    assert drawn.shape == (DRAWS,)
    assert drawn.mean() == pytest.approx(expected.mean(), abs=4 * expected.std() / DRAWS**0.5)
    assert drawn.std() == pytest.approx(expected.std(), rel=0.15)


def test_nothing_flagged_is_not_certainty() -> None:
    drawn = rates([False] * 40, weights(PROMPTS, ONCE), "a cell")
    assert 0 < drawn.min() < np.quantile(drawn, 0.975) < 0.15


def test_images_that_resemble_each_other_widen_the_interval() -> None:
    # ten images of each of forty prompts: all alike within a prompt, or all different
    prompts = [p for p in PROMPTS for _ in range(10)]
    seeds = list(range(10)) * 40
    weight = weights(prompts, seeds, by_prompt=True)
    alike = rates([i < 8 for i in range(40) for _ in range(10)], weight, "c")
    mixed = rates([s < 2 for s in seeds], weight, "c")
    assert alike.std() > 2.5 * mixed.std()


def test_what_two_states_share_varies_together() -> None:
    weight = weights(PROMPTS, ONCE)
    flagged = [i % 4 == 0 for i in range(40)]
    one, other = rates(flagged, weight, "before"), rates(flagged, weight, "after")
    assert np.corrcoef(one, other)[0, 1] > 0.8


def test_paired_changes_vary_less_than_unpaired_rates() -> None:
    weight = weights(PROMPTS, ONCE)
    before = [i < 20 for i in range(40)]
    after = [i < 22 for i in range(40)]
    paired = resampling.differences(
        [int(a) - int(b) for a, b in zip(after, before, strict=True)], weight, "d"
    )
    unpaired = rates(after, weights([f"x{p}" for p in PROMPTS], ONCE), "a") - rates(
        before, weight, "b"
    )
    assert paired.std() < 0.6 * unpaired.std()


def test_a_ratio_of_equal_values_is_one_in_every_replicate() -> None:
    values = list(np.linspace(0.5, 0.9, 40))
    assert ratios(values, values, weights(PROMPTS, ONCE)) == pytest.approx(np.ones(DRAWS))
    with pytest.raises(ValueError, match="not clearly positive"):
        ratios(values, [-1.0] * 40, weights(PROMPTS, ONCE))


def test_an_interval_always_holds_its_estimate() -> None:
    drawn = np.linspace(0.2, 0.4, DRAWS)
    assert percentile_interval(drawn, 0.9, 0.95)[1] == 0.9
    assert percentile_interval(drawn, 0.3, 0.95) == pytest.approx((0.205, 0.395))


def test_images_without_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="prompts"):
        weights(["a"], [])
    with pytest.raises(ValueError, match="prompts"):
        weights([], [])
