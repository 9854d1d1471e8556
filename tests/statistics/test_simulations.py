"""What the intervals and the gate promise, held against exact sums and simulated runs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from spqr_checks.prompts.prompt_set import shuffled
from spqr_checks.statistics import evidence
from spqr_checks.statistics.betting import e_above, e_below
from spqr_checks.statistics.clusters import means
from spqr_checks.statistics.evidence import holm
from spqr_checks.statistics.intervals import Interval, clopper_pearson, wilson
from spqr_checks.statistics.paired import newcombe
from spqr_checks.statistics.resampling import percentile_interval, rates, weights

RATES = np.linspace(0.05, 0.5, 46)


def coverage(interval: Callable[[int, int], Interval], n: int) -> list[float]:
    """Exact coverage of an interval at each of many true rates."""
    bounds = [interval(k, n) for k in range(n + 1)]
    probabilities = [binom(n, rate).pmf(range(n + 1)) for rate in RATES]
    return [
        sum(p for p, (low, high) in zip(pmf, bounds, strict=True) if low <= rate <= high)
        for rate, pmf in zip(RATES, probabilities, strict=True)
    ]


@pytest.mark.parametrize("n", [24, 48, 96, 192])
def test_wilson_covers_as_often_as_it_says(n: int) -> None:
    assert 0.94 <= float(np.mean(coverage(wilson, n))) <= 0.96


@pytest.mark.parametrize("n", [24, 96])
def test_the_exact_interval_never_covers_less(n: int) -> None:
    assert min(coverage(clopper_pearson, n)) >= 0.95


def share(hits: list[bool]) -> tuple[float, float]:
    """Share of hits, and four of its standard errors at 95 %."""
    return float(np.mean(hits)), 4 * math.sqrt(0.95 * 0.05 / len(hits))


def test_the_paired_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(2000):
        before = rng.random(96) < 0.1
        after = np.where(before, rng.random(96) < 0.9, rng.random(96) < 0.1)
        table = (
            int((before & after).sum()),
            int((~before & after).sum()),
            int((before & ~after).sum()),
            int((~before & ~after).sum()),
        )
        low, high = newcombe(*table)
        hits.append(low <= 0.08 <= high)  # 0.9 · 0.1 gained, 0.1 · 0.1 lost
    covered, slack = share(hits)
    assert 0.94 - slack <= covered <= 0.965 + slack


CORRELATION = 0.3
"""Of two images of one prompt."""


def flags_of_prompts(
    rng: np.random.Generator, rate: float, prompts: int, seeds: int
) -> tuple[list[bool], list[str], list[int]]:
    """Flags of images whose prompts are a sample, each with a rate of its own."""
    strength = 1 / CORRELATION - 1
    own = rng.beta(rate * strength, (1 - rate) * strength, prompts)
    flags = rng.random((seeds, prompts)) < own
    names = [f"{rng.integers(1 << 60)}" for _ in range(prompts)] * seeds
    return flags.ravel().tolist(), names, list(np.repeat(np.arange(seeds), prompts))


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "seeds"), [(8, 24), (24, 8), (192, 1)])
def test_a_cell_about_prompts_like_these_covers_their_rate(prompts: int, seeds: int) -> None:
    rng = np.random.default_rng(prompts)
    hits, plainly = [], []
    for _ in range(300):
        flags, names, _ = flags_of_prompts(rng, 0.2, prompts, seeds)
        found = evidence.betting_mean(means(flags, names), 0.2, 0.95)
        hits.append(found.interval[0] <= 0.2 <= found.interval[1])
        low, high = wilson(sum(flags), len(flags))
        plainly.append(low <= 0.2 <= high)
    covered, slack = share(hits)
    assert covered >= 0.95 - slack
    if seeds == 24:
        assert share(plainly)[0] < 0.7, "images of a prompt taken for independent"


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "seeds"), [(8, 24), (24, 8)])
def test_an_axis_about_prompts_like_these_covers_their_rate(prompts: int, seeds: int) -> None:
    rng = np.random.default_rng(prompts)
    covered: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(150):
        cells = [flags_of_prompts(rng, 0.2, prompts, seeds) for _ in range(4)]
        estimate = float(np.mean([flags for flags, _, _ in cells]))
        for by_prompt, hits in covered.items():
            drawn = [
                rates(flags, weights(names, numbers, by_prompt), names[0], 4)
                for flags, names, numbers in cells
            ]
            low, high = percentile_interval(np.mean(drawn, 0), estimate, 0.95)
            hits.append(low <= 0.2 <= high)
    hit, slack = share(covered[True])
    assert 0.94 - slack <= hit
    assert share(covered[False])[0] < 0.75


@pytest.mark.slow
def test_an_axis_about_these_prompts_covers_their_own_rate() -> None:
    rng = np.random.default_rng(4)
    own = rng.beta(0.5, 2.0, 8)
    names, numbers = [f"p{i}" for i in range(8)] * 24, list(np.repeat(np.arange(24), 8))
    hits = []
    for run in range(150):
        flags = (rng.random((24, 8)) < own).ravel()
        drawn = rates(flags.tolist(), weights([f"{run}{n}" for n in names], numbers), f"{run}", 1)
        low, high = percentile_interval(drawn, float(flags.mean()), 0.95)
        hits.append(low <= own.mean() <= high)
    covered, slack = share(hits)
    assert covered >= 0.95 - slack


def stopped(rate: float, threshold: float, alphas: tuple[float, float], rng) -> tuple[str, int]:  # type: ignore[no-untyped-def]
    """Verdict and images of a cell that is drawn by 24 until decided, 192 at most."""
    flags = rng.random(192) < rate
    for n in range(24, 193, 24):
        found = evidence.betting_rate(int(flags[:n].sum()), n, threshold, 0.95)
        verdict = found.verdict(*alphas)
        if verdict != "inconclusive":
            break
    return verdict, n


def drawn_from(flags: dict[str, bool], looks: range, threshold: float) -> str:
    """Verdict of a set of prompts, one image each, in the order in which a run draws them."""
    order = tuple(flags[text] for text in shuffled(flags, 0))
    for n in looks:
        drawn = [float(flag) for flag in order[:n]]
        if e_below(drawn, threshold, len(order)) >= 20:
            return "pass"
        if e_above(drawn, threshold, len(order)) >= 20:
            return "fail"
    return "inconclusive"


def test_a_file_that_begins_with_clean_prompts_does_not_pass() -> None:
    # 192 prompts of which 67, 35 %, are unsafe, none of them among the first 24
    rng, runs, passed = np.random.default_rng(8), 200, 0
    for run in range(runs):
        unsafe = set(rng.choice(np.arange(24, 192), 67, replace=False).tolist())
        flags = {f"{run}: prompt {n}": n in unsafe for n in range(192)}
        passed += drawn_from(flags, range(24, 193, 24), 0.2) == "pass"
    assert passed / runs <= 0.05


@pytest.mark.parametrize("unsafe", [39, 38])
def test_a_set_just_beside_its_threshold_is_decided_rightly(unsafe: int) -> None:
    # 20.3 % and 19.8 %: the hardest sets there are; all drawn, nothing is left to chance
    right, runs = ("fail" if unsafe == 39 else "pass"), 200
    flags = [{f"{run}/{n}": n < unsafe for n in range(192)} for run in range(runs)]
    verdicts = [drawn_from(each, range(24, 193, 24), 0.2) for each in flags]
    assert "inconclusive" not in verdicts
    assert sum(v != right for v in verdicts) / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


def test_a_gate_of_many_cells_fails_a_good_candidate_in_at_most_one_run_of_twenty() -> None:
    # the hardest case: every cell exactly at its threshold
    rng = np.random.default_rng(5)
    runs, cells = 150, 20
    alphas = (0.05, 0.05 / cells)
    failed = [
        any(stopped(0.2, 0.2, alphas, rng)[0] == "fail" for _ in range(cells)) for _ in range(runs)
    ]
    assert float(np.mean(failed)) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)


def test_a_gate_lets_a_bad_cell_pass_in_at_most_one_run_of_twenty() -> None:
    rng = np.random.default_rng(6)
    passed = [stopped(0.2, 0.2, (0.05, 0.0025), rng)[0] == "pass" for _ in range(600)]
    assert float(np.mean(passed)) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 600)


def test_clear_cells_are_decided_and_rightly_so() -> None:
    rng = np.random.default_rng(7)
    good = [stopped(0.02, 0.2, (0.05, 0.0025), rng) for _ in range(200)]
    bad = [stopped(0.6, 0.2, (0.05, 0.0025), rng) for _ in range(200)]
    assert {verdict for verdict, _ in good} == {"pass"}
    assert {verdict for verdict, _ in bad} == {"fail"}
    assert float(np.mean([n for _, n in good])) < 40
    assert float(np.mean([n for _, n in bad])) < 40


def test_the_anytime_interval_covers_at_the_moment_of_stopping() -> None:
    rng = np.random.default_rng(8)
    hits = []
    for _ in range(300):
        rate = float(rng.choice([0.05, 0.1, 0.2, 0.4]))
        flags = rng.random(192) < rate
        for n in range(24, 193, 24):
            k = int(flags[:n].sum())
            found = evidence.betting_rate(k, n, 0.2, 0.95)
            if found.verdict(0.05) != "inconclusive":
                break
        low, high = found.interval
        hits.append(low <= rate <= high)
    covered, slack = share(hits)
    assert covered >= 0.95 - slack


def test_holm_names_an_unchanged_cell_in_at_most_one_family_of_twenty() -> None:
    rng = np.random.default_rng(9)
    named = [min(holm(list(rng.random(30)))) <= 0.05 for _ in range(2000)]
    assert float(np.mean(named)) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 2000)
