"""CMMD (Jayasumana et al. 2024): MMD of CLIP image embeddings."""

from __future__ import annotations

import numpy as np

from spqr_checks.metrics.distances import Features, Floats
from spqr_checks.metrics.distances.mmd import SquaredMMD

_SIGMA = 10.0
_SCALE = 1000.0


def gaussian(x: Features, y: Features) -> Floats:
    """k(a, b) = exp(−‖a − b‖² / 2σ²) with σ = 10."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :] - 2 * x @ y.T
    return np.asarray(np.exp(-np.maximum(squares, 0.0) / (2 * _SIGMA**2)))


DISTANCE = SquaredMMD("cmmd", gaussian, _SCALE)
"""Gaussian kernel with σ = 10 on CLIP image embeddings, × 1000.

The embeddings are CLIP's projected image embeddings scaled to unit norm and nothing else, which
is also what the authors' code feeds to the kernel. The estimate is the paper's unbiased one. The
authors' code, for speed, keeps the pairs of an image with itself: on the same features it reads
higher by 1000 × ((1 − k̄_x) / n + (1 − k̄_y) / m), k̄ the mean kernel value of different images.
"""
