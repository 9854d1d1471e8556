"""Kernel Inception Distance (Bińkowski et al. 2018)."""

from __future__ import annotations

import numpy as np

from spqr_checks.metrics.distances import Features, Floats
from spqr_checks.metrics.distances.mmd import SquaredMMD


def polynomial(x: Features, y: Features) -> Floats:
    """k(a, b) = (a·b / d + 1)³ with d features."""
    return np.asarray((x @ y.T / x.shape[1] + 1.0) ** 3)


DISTANCE = SquaredMMD("kid", polynomial, 1.0)
"""As in torchmetrics' ``KernelInceptionDistance`` over one subset that holds all images, but on
whatever features it is given and for sets of unequal size. Not multiplied by anything.
"""
