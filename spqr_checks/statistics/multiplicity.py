"""Many tests at once: p-values adjusted for how many there are."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979, Scandinavian Journal of Statistics 6:65).

    Rejecting where the adjusted p-value is at most α rejects any true hypothesis in at most the
    share α of families, however the tests depend on each other.

    Args:
        p_values: of one family, in any order.

    Returns:
        Adjusted p-values in the order given, at most 1, never below the p-value itself.

    Raises:
        ValueError: a p-value that is not a number from 0 to 1.
    """
    _check(p_values)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """The step-up adjustment of Benjamini and Hochberg (1995, JRSS B 57:289).

    Rejecting where the adjusted p-value is at most α keeps the expected share of true hypotheses
    among the rejected ones at most α, for tests that are independent or positively dependent.

    Arguments, result and errors as for `holm`.
    """
    _check(p_values)
    if not p_values:
        return []
    from scipy.stats import false_discovery_control

    return [float(p) for p in false_discovery_control(p_values, method="bh")]


def _check(p_values: Sequence[float]) -> None:
    for p in p_values:
        if not 0 <= p <= 1:  # also refuses NaN
            raise ValueError(f"a p-value lies between 0 and 1, not at {p}")
