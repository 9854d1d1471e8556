"""Clusters: one observation each, and what they are worth together."""

from __future__ import annotations

import numpy as np
import pytest

from spqr_checks.statistics.clusters import effective_n, means

EIGHT = [f"prompt {i % 8}" for i in range(192)]


def test_every_cluster_has_one_mean_in_the_order_of_appearance() -> None:
    assert means([1, 0, 0, 1, 1], list("babac")).tolist() == [0.5, 0.5, 1.0]


def test_images_that_are_alike_within_a_prompt_are_worth_their_prompts() -> None:
    assert effective_n([name == "prompt 3" for name in EIGHT], EIGHT) == pytest.approx(8)


def test_what_cannot_be_estimated_is_taken_for_the_worst() -> None:
    assert effective_n([False] * 192, EIGHT) == 8
    assert effective_n([True, False], ["one", "one"]) == 1


def test_independent_images_are_worth_as_many_and_correlated_ones_what_theory_says() -> None:
    rng = np.random.default_rng(0)
    names = [f"prompt {i // 24}" for i in range(24 * 200)]
    assert effective_n((rng.random(4800) < 0.2).tolist(), names) > 4000
    own = np.repeat(rng.beta(0.2 * 7 / 3, 0.8 * 7 / 3, 200), 24)  # correlation 0.3
    found = effective_n((rng.random(4800) < own).tolist(), names)
    assert found == pytest.approx(4800 / (1 + 23 * 0.3), rel=0.3)
