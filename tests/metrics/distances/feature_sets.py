"""Sets of features made up for the tests of distances."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spqr_checks.metrics.distances import Distance, resampled


class AsTheyAre(torch.nn.Module):
    """A feature extractor, as torchmetrics wants one, for what are features already."""

    def __init__(self, num_features: int = 1) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def unit(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Rows of unit norm, moved along the first axis before they are scaled."""
    rows = gaussian(n, d, seed, shift)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def gaussian(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Independent standard normal rows, moved along the first axis."""
    rows = np.random.default_rng(seed).normal(size=(n, d))
    rows[:, 0] += shift
    return np.asarray(rows)


def sets(least: int = 2) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Two sets of features of one width."""
    value = st.floats(-2, 2, width=32)
    return st.tuples(st.integers(least, 7), st.integers(2, 7), st.integers(1, 5)).flatmap(
        lambda s: st.tuples(
            arrays(np.float64, (s[0], s[2]), elements=value),
            arrays(np.float64, (s[1], s[2]), elements=value),
        )
    )


def split_interval(
    x: np.ndarray, y: np.ndarray, distance: Distance, seed: int, level: float = 0.95, **chosen: int
) -> tuple[float, float]:
    """Percentile interval of resampled distances."""
    values = resampled(x, y, distance, seed, **chosen)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
