"""Evidence: p-values agree with intervals, with scipy and with simulation.

Adjusted p-values against their definitions and by simulation.
"""

from __future__ import annotations

import gc
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

from spqr_checks.statistics import evidence
from spqr_checks.statistics.betting import e_above
from spqr_checks.statistics.evidence import Evidence, benjamini_hochberg, holm
from spqr_checks.statistics.intervals import clopper_pearson, wilson

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
thresholds = st.floats(0.01, 0.99)


@given(counts, thresholds)
def test_a_rate_is_decided_as_clopper_and_pearsons_bounds_do(
    count: tuple[int, int], threshold: float
) -> None:
    found = evidence.rate(*count, threshold, 0.95)
    for alpha in (0.05, 0.05 / 60):
        for p in (found.p_met, found.p_missed):
            assume(abs(p - alpha) > 1e-9)
        low, high = clopper_pearson(*count, 1 - alpha, sides=1)
        assert (found.p_met <= alpha) == (high <= threshold)
        assert (found.p_missed <= alpha) == (low >= threshold)
    assert found.interval == wilson(*count)


@pytest.mark.parametrize("cells", [1, 60])
@pytest.mark.parametrize(("threshold", "n"), [(0.2, 24), (0.01, 24), (0.05, 192), (0.3, 96)])
def test_cells_at_their_thresholds_fail_no_more_often_than_they_may(
    cells: int, threshold: float, n: int
) -> None:
    k = np.arange(n + 1)
    chances = binom(n, threshold).pmf(k)
    failed = [evidence.rate(int(i), n, threshold, 0.95).p_missed <= 0.05 / cells for i in k]
    assert 1 - (1 - chances[failed].sum()) ** cells <= 0.05
    passed = [evidence.rate(int(i), n, threshold, 0.95).p_met <= 0.05 for i in k]
    assert chances[passed].sum() <= 0.05
    if n == 24 and cells == 60:  # what the score test does there
        z = (k / n - threshold) / math.sqrt(threshold * (1 - threshold) / n)
        assert 1 - (1 - chances[norm.sf(z) <= 0.05 / cells].sum()) ** cells > 0.15


@pytest.mark.parametrize("test", [evidence.rate, evidence.betting_rate])
def test_a_threshold_of_nothing_cannot_be_met_but_missed(test) -> None:  # type: ignore[no-untyped-def]
    assert test(0, 50, 0.0, 0.95).verdict(0.05) == "inconclusive"
    assert test(1, 50, 0.0, 0.95).verdict(0.05) == "fail"
    assert test(50, 50, 1.0, 0.95).verdict(0.05) == "pass"


@given(counts, thresholds)
@settings(max_examples=60)
def test_betting_p_values_are_the_inverse_of_the_capital(
    count: tuple[int, int], threshold: float
) -> None:
    k, n = count
    found = evidence.betting_rate(k, n, threshold, 0.95)
    capital = e_above([1.0] * k + [0.0] * (n - k), threshold)
    assert found.p_missed == pytest.approx(min(1.0, 1 / capital) if capital else 1.0)
    assert not (found.p_met <= 0.05 and found.p_missed <= 0.05)


def test_a_drift_is_bet_on_in_points_between_minus_one_and_one() -> None:
    clear = evidence.betting_difference(0, 40, 0, 60, 0.1, 0.95)
    assert clear.verdict(0.05) == "fail"
    assert clear.interval[0] > 0.1
    none = evidence.betting_difference(3, 0, 0, 397, 0.1, 0.95)
    assert none.verdict(0.05) == "pass"
    assert none.interval[0] < 0 < none.interval[1]


def test_failing_may_be_held_to_a_smaller_error() -> None:
    found = Evidence((0.2, 0.6), 0.9, 0.01)
    assert found.verdict(0.05) == "fail"
    assert found.verdict(0.05, alpha_fail=0.001) == "inconclusive"
    assert found.flipped().verdict(0.05) == "pass"


@pytest.mark.parametrize("values", [[0.5, 2.0], [math.nan, 0.5]])
def test_bad_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        evidence.betting_mean(values, 0.5, 0.95)


Adjustment = Callable[..., list[float]]
p_value = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.02, 0.05, 1.0]))
families = st.lists(p_value, max_size=12)
METHODS = [holm, benjamini_hochberg]


def holm_by_definition(p_values: Sequence[float]) -> list[float]:
    """Of a hypothesis at least as small as q: how many are left when q is reached, times q."""
    count = len(p_values)

    def stepped(q: float) -> float:
        return min(1.0, (count - sum(p < q for p in p_values)) * q)

    return [max(stepped(q) for q in p_values if q <= p) for p in p_values]


def step_up_by_definition(p_values: Sequence[float]) -> list[float]:
    """The smallest count·q / (number at most q) over all q that are at least as large."""
    count = len(p_values)

    def stepped(q: float) -> float:
        return min(1.0, count * q / sum(p <= q for p in p_values))

    return [min(stepped(q) for q in p_values if q >= p) for p in p_values]


@given(families)
def test_holm_is_what_its_definition_says(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(holm_by_definition(p_values), abs=1e-12)


@given(families)
def test_benjamini_hochberg_is_what_its_definition_says(p_values: list[float]) -> None:
    expected = step_up_by_definition(p_values)
    assert benjamini_hochberg(p_values) == pytest.approx(expected, abs=1e-12)


@pytest.fixture(scope="module")
def frozen() -> Iterator[None]:
    """statsmodels collects garbage in every call: costly among all objects of a test run."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(("method", "name"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
@given(p_values=st.lists(p_value, min_size=1, max_size=12))
def test_both_are_those_of_statsmodels(
    method: Adjustment, name: str, p_values: list[float]
) -> None:
    expected = multipletests(p_values, method=name)[1]
    assert method(p_values) == pytest.approx(expected.tolist(), abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
@given(p_values=families, data=st.data())
def test_the_order_of_the_family_does_not_matter(
    method: Adjustment, p_values: list[float], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(p_values))))
    adjusted = method(p_values)
    assert method([p_values[i] for i in order]) == [adjusted[i] for i in order]


@pytest.mark.parametrize("method", METHODS)
@given(p_values=families)
def test_adjusting_keeps_the_order_and_never_lowers_a_p_value(
    method: Adjustment, p_values: list[float]
) -> None:
    adjusted = method(p_values)
    assert all(p <= a + 1e-15 and 0 <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    ranked = [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


@given(families)
def test_holm_is_never_more_lenient_than_benjamini_hochberg(p_values: list[float]) -> None:
    pairs = zip(holm(p_values), benjamini_hochberg(p_values), strict=True)
    assert all(strict >= lenient - 1e-12 for strict, lenient in pairs)


def test_a_single_test_needs_no_adjustment() -> None:
    for method in METHODS:
        assert method([0.03]) == [0.03]
        assert method([]) == []


def test_an_example_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])


@pytest.mark.parametrize("method", METHODS)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=20),
    st.floats(0.1, 10),
)
def test_weights_count_in_proportion_and_nothing_is_asked_beyond_a_share(
    method: Adjustment, family: list[tuple[float, float]], factor: float
) -> None:
    p_values, weights = zip(*family, strict=True)
    adjusted = method(p_values, weights)
    assert method(p_values, [factor * w for w in weights]) == pytest.approx(adjusted)
    for p, weight, found in zip(p_values, weights, adjusted, strict=True):
        assert found <= p / (weight / sum(weights)) * (1 + 1e-9) + 1e-300  # Bonferroni
    alike = [0.5] * len(family)
    assert method(p_values, alike) == pytest.approx(method(p_values))


def test_holm_with_weights_names_a_true_hypothesis_in_one_of_twenty_families() -> None:
    rng = np.random.default_rng(0)
    weights = [1.0, 1.0, 0.6, 0.15, 0.07]
    named = [min(holm(list(p), weights)) <= 0.05 for p in rng.random((4000, len(weights)))]
    assert 0.04 < np.mean(named) < 0.06


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_are_positive_numbers(weight: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        holm([0.1, 0.2], [1.0, weight])


def test_holm_names_anything_among_twenty_true_hypotheses_in_one_of_twenty_families() -> None:
    drawn = np.random.default_rng(5).random((4000, 20))
    named = np.mean([min(holm(family)) <= 0.05 for family in drawn.tolist()])
    unadjusted = np.mean(drawn.min(axis=1) <= 0.05)
    assert 0.04 <= named <= 0.06
    assert unadjusted > 0.6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan, math.inf])
def test_what_is_no_probability_is_refused(method: Adjustment, wrong: float) -> None:
    with pytest.raises(ValueError, match="p-value"):
        method([0.1, wrong])


@pytest.mark.heavy
def test_holm_needs_no_scipy() -> None:
    code = (
        "import sys\n"
        "from spqr_checks.statistics.evidence import benjamini_hochberg, holm\n"
        "holm([0.1, 0.2])\n"
        "assert 'scipy' not in sys.modules\n"
        "benjamini_hochberg([0.1, 0.2])\n"
        "assert 'scipy' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
