"""Student's t, once and at any time: what a mean says that is known up to its own spread.

The anytime version is the scale-invariant mixture of Lai (1976, Annals of Statistics 4:265; Wang
and Ramdas 2025, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown
variance", Sequential Analysis 44:56). Against a mean of zero it bets on a mean of δ standard
deviations, with δ from a half-normal distribution; the scale has the right Haar prior and falls
out. At the true mean the capital is a martingale, and it falls as the hypothetical mean rises, so
it is evidence against every mean at or below zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from spqr_checks.statistics.betting import Floats

_SPREAD = 0.3
"""Standard deviation of δ: effects that 50 to 400 observations can show."""
_HALVINGS = 40
_FOLDS = 45.0
"""A tail is integrated until it has fallen by so many factors of e."""


def tail(t: float | Floats, degrees: float) -> Floats:
    """P(T > t), to nine digits however small it is, without scipy.

    Args:
        degrees: of freedom, above 0.

    Returns:
        As many probabilities as there are ``t``.
    """
    # with t = sqrt(degrees) sinh(u) the density becomes cosh(u) to the power -degrees
    start = np.arcsinh(np.minimum(np.abs(t), 1e12) / math.sqrt(degrees))
    fallen = np.logaddexp(start, -start) + _FOLDS / degrees
    end = fallen + np.log1p(np.sqrt(-np.expm1(math.log(4) - 2 * fallen))) - math.log(2)
    nodes, shares = _quadrature()
    u = start[..., None] + (end - start)[..., None] * nodes
    folds = np.logaddexp(u, -u) - math.log(2)
    scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(math.pi)
    above = (end - start) * (np.exp(scale - degrees * folds) @ shares)
    return np.asarray(np.where(np.asarray(t) < 0, 1 - above, above))


def e_value(t: float | Floats, n: int) -> Floats:
    """Evidence of n observations with this t statistic that their mean is above zero.

    Against every mean at or below zero, 1/e is a p-value at any stopping time.

    Args:
        t: mean over its standard error, the latter from n − 1 degrees of freedom.
        n: at least 2.
    """
    t = np.clip(t, -1e9, 1e9)
    prior = _SPREAD**-2
    explained = n - 1 + t**2 * prior / (n + prior)
    log = 0.5 * math.log(prior / (n + prior)) + n / 2 * np.log((n - 1 + t**2) / explained)
    sided = 2 * tail(-n * t / np.sqrt((n + prior) * explained), n)
    return np.asarray(np.exp(np.minimum(log, 700.0)) * sided)


def p_value(degrees: int, anytime: bool = False) -> Callable[[float], float]:
    """One-sided p-values of t statistics, at a fixed number of observations or at any time."""
    if anytime:
        return lambda t: min(1.0, 1 / max(1e-300, float(e_value(t, degrees + 1))))
    return lambda t: float(tail(t, degrees))


@lru_cache(maxsize=1 << 10)
def critical(degrees: int, error: float, anytime: bool = False) -> float:
    """The t statistic with this one-sided p-value; infinite if none has so small a one."""
    shown = p_value(degrees, anytime)
    low, high = 0.0, 1e4
    if shown(high) > error:
        return math.inf
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if shown(middle) > error else (low, middle)
    return low


@lru_cache
def _quadrature() -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(96)
    return (nodes + 1) / 2, weights / 2
