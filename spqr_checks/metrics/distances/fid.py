"""Fréchet distance of two Gaussians fitted to features (FID, Heusel et al. 2017).

With means μ and unbiased covariances Σ of the features::

    d² = ‖μ_x − μ_y‖² + tr Σ_x + tr Σ_y − 2 tr (Σ_x Σ_y)^½

The last trace is the sum of the singular values of A Bᵀ for any factors Σ_x = AᵀA, Σ_y = BᵀB.
That needs no root of a product of two singular matrices, holds at fewer images than features, and
is cheap enough for a bootstrap. Equal to torchmetrics' ``FrechetInceptionDistance`` in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spqr_checks.metrics.distances import Features, Floats, checked_pair


@dataclass(frozen=True, slots=True)
class Frechet:
    """The plug-in estimate; see `Distance`.

    It is biased upwards by about a constant over the number of images (Chong and Forsyth 2020),
    and badly so at fewer images than features. Compare it only at equal numbers of images.
    """

    name: str = "fid"

    def __call__(self, x: Any, y: Any) -> float:
        x, y = checked_pair(x, y)
        factors = [_root(rows) for rows in (x, y)]
        shared = float(np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum())
        apart = float(((x.mean(0) - y.mean(0)) ** 2).sum())
        return apart + sum(float((factor**2).sum()) for factor in factors) - 2 * shared

    def resampled(self, x: Features, y: Features, counts: Floats) -> Floats:
        """Of resamples of ``x``, moved so that their mean is the distance of ``x`` itself.

        A resample has fewer different images than the sample, so its bias is that of the sample
        over again: an interval of the plain resamples lies above the distance, and holds the
        expectation of the distance at this number of images almost never. Their spread, around
        the distance, holds it; beyond as many features as images it is wider than needed.
        """
        root = _root(y)
        projected = x @ root.T
        constant = float((root**2).sum())
        values = np.array([self._of_resample(x, y, projected, row) for row in counts]) + constant
        return np.asarray(values - values.mean() + self(x, y))

    def _of_resample(self, x: Features, y: Features, projected: Floats, counts: Floats) -> float:
        """The distance of one resample, less tr Σ_y."""
        drawn = np.flatnonzero(counts)
        n, weights = float(counts.sum()), counts[drawn]
        rows, seen = x[drawn], projected[drawn]
        mean = weights @ rows / n
        spread = float(weights @ (rows**2).sum(1)) - n * float(mean @ mean)
        centred = (seen - weights @ seen / n) * np.sqrt(weights / (n - 1))[:, None]
        wide = centred.shape[0] <= centred.shape[1]
        gram = centred @ centred.T if wide else centred.T @ centred
        shared = float(np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0)).sum())
        return float(((mean - y.mean(0)) ** 2).sum()) + spread / (n - 1) - 2 * shared


def _root(rows: Features) -> Floats:
    """A factor R of the covariance RᵀR, shape (min(n, d), d)."""
    centred = (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)
    if len(centred) <= centred.shape[1]:
        return np.asarray(centred)
    return np.asarray(np.linalg.qr(centred, mode="r"))


DISTANCE = Frechet()
"""Whatever the features are: only on the Inception network's is it the FID of the literature."""
