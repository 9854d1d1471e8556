"""Quality and gain: what joint resampling shows, held against simulated features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from spqr_checks.checks.adherence import distance_evidence
from spqr_checks.checks.stopping import Stopping
from spqr_checks.metrics.distances import distance_named
from spqr_checks.scoring.cell_result import ImageRef
from spqr_checks.settings import Settings
from spqr_checks.statistics.evidence import Evidence

IMAGES = [ImageRef(f"{i}", f"prompt {i}", 0, False) for i in range(48)]
WIDTH = 6
cmmd = distance_named("cmmd")
FIXED = Stopping(Settings(mode="fixed"), 1)


def features(rng: np.random.Generator, n: int, shift: float) -> np.ndarray:
    return np.asarray(rng.normal(0, 1, (n, WIDTH)) + shift * (np.arange(WIDTH) == 0))


REFERENCE = features(np.random.default_rng(9), 512, 0.0)
SHIFTS = {"base": 0.8, "aligned": 1.5, "destroyed": 3.0}


def truth() -> float:
    """Quality of the candidate, from many images."""
    rng = np.random.default_rng(10)
    base, aligned, destroyed = (
        float(np.mean([cmmd(features(rng, 2000, shift), REFERENCE) for _ in range(3)]))
        for shift in SHIFTS.values()
    )
    return (destroyed - aligned) / (destroyed - base)


def quality(
    sets: Sequence[np.ndarray], threshold: float, stopping: Stopping = FIXED
) -> tuple[Evidence, list[float]]:
    return distance_evidence(
        sets,
        REFERENCE,
        cmmd,
        lambda base, aligned, destroyed: (destroyed - aligned, destroyed - base),
        stopping,
        images=IMAGES[: len(sets[0])],
        threshold=threshold,
    )


@pytest.mark.parametrize("cells", [1, 60, 600])
def test_a_destroyed_generator_fails_whatever_the_number_of_cells(cells: int) -> None:
    rng = np.random.default_rng(cells)
    base, aligned, destroyed = (features(rng, 48, shift) for shift in (0.8, 3.0, 3.0))
    found, drawn = quality([base, aligned, destroyed], 0.8)
    assert Stopping(Settings(mode="fixed"), cells).verdict(found) == "fail"
    assert np.mean(drawn) == pytest.approx(0, abs=0.35)


@pytest.mark.slow
def test_quality_keeps_its_errors_and_its_coverage() -> None:
    threshold, rng = truth(), np.random.default_rng(11)
    met, missed, covered = [], [], []
    for _ in range(120):
        found, _ = quality([features(rng, 48, shift) for shift in SHIFTS.values()], threshold)
        met.append(found.p_met <= 0.05)
        missed.append(found.p_missed <= 0.05)
        covered.append(found.interval[0] <= threshold <= found.interval[1])
    slack = 3 * math.sqrt(0.05 * 0.95 / 120)
    assert float(np.mean(met)) <= 0.06 + slack
    assert float(np.mean(missed)) <= 0.06 + slack
    assert float(np.mean(covered)) >= 0.93 - slack


def test_errors_of_the_base_and_of_the_destroyed_generator_widen_the_interval() -> None:
    rng = np.random.default_rng(12)
    base, aligned, destroyed = (features(rng, 48, shift) for shift in SHIFTS.values())
    found, _ = quality([base, aligned, destroyed], 0.8)
    known = [np.repeat(x, 2, 0)[:48] * 0 + x.mean(0) for x in (base, destroyed)]
    alone, _ = quality([known[0], aligned, known[1]], 0.8)
    assert np.ptp(found.interval) > 1.1 * np.ptp(alone.interval)


def test_what_candidate_and_base_share_does_not() -> None:
    rng = np.random.default_rng(13)
    base, destroyed = features(rng, 48, 0.8), features(rng, 48, 3.0)
    same, _ = quality([base, base, destroyed], 0.8)
    other, _ = quality([base, features(rng, 48, 0.8), destroyed], 0.8)
    assert np.ptp(same.interval) < 0.1 * np.ptp(other.interval)
    assert same.p_met < 1e-9


def test_images_of_a_prompt_are_one_observation_where_prompts_are_a_sample() -> None:
    rng = np.random.default_rng(14)
    sets = [
        np.repeat(features(rng, 8, shift), 6, 0) + rng.normal(0, 0.05, (48, WIDTH))
        for shift in SHIFTS.values()
    ]
    names = [ImageRef(f"{i}", f"prompt {i // 6}", i % 6, False) for i in range(48)]
    like = Stopping(Settings(mode="fixed", about="prompts-like-these"), 1)
    spans = []
    for stopping in (FIXED, like):
        found, _ = distance_evidence(
            sets,
            REFERENCE,
            cmmd,
            lambda base, aligned, destroyed: (destroyed - aligned, destroyed - base),
            stopping,
            images=names,
            threshold=0.8,
        )
        spans.append(np.ptp(found.interval))
    assert spans[1] > 1.8 * spans[0]


def test_a_base_as_far_as_the_destroyed_generator_is_no_scale() -> None:
    rng = np.random.default_rng(15)
    with pytest.raises(ValueError, match="not clearly positive"):
        quality([features(rng, 48, 3.0) for _ in range(3)], 0.8)
