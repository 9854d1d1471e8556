"""Distances between two sets of image features by name, one file each. Light: imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spqr_checks.registry import Registry

Features: TypeAlias = NDArray[np.float64]
"""One row per image, shape (n, d)."""
Floats: TypeAlias = NDArray[np.float64]


class Distance(Protocol):
    """A distance of images under test from reference images; everything is float64."""

    @property
    def name(self) -> str: ...

    def __call__(self, x: Any, y: Any) -> float:
        """Distance of two sets of features.

        Args:
            x, y: array-likes of shapes (n, d) and (m, d), n and m ≥ 2.

        Raises:
            ValueError: for fewer than two images, NaN, infinities or unequal widths.
        """

    def resampled(self, x: Features, y: Features, counts: Floats) -> Floats:
        """The distance of resamples of ``x`` from the same ``y``, shape (resamples,).

        Args:
            counts: how often each image of ``x`` was drawn, shape (resamples, n); each row sums
                to n and has at least two images. Not whole numbers where clusters were drawn.
        """


DISTANCES: Registry[Distance] = Registry(
    "distance",
    __name__,
    "DISTANCE",
    "spqr_checks.distances",
    lambda found: callable(found) and hasattr(found, "resampled"),
)
distance_named = DISTANCES.get


def checked_pair(x: Any, y: Any, least: int = 2) -> tuple[Features, Features]:
    """Both sets as float64; ``least`` images in ``x`` and two in ``y``. Raises ValueError."""
    first, second = _checked(x, "x", least), _checked(y, "y", 2)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"x has {first.shape[1]} features per image, y has {second.shape[1]}")
    return first, second


def _checked(x: Any, name: str, least: int) -> Features:
    features = np.asarray(x, dtype=np.float64)
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"{name} has shape {features.shape}; one row of features per image needed")
    if len(features) < least:
        raise ValueError(f"{name} has {len(features)} images; at least {least} are needed")
    if not np.isfinite(features).all():
        raise ValueError(f"{name} contains NaN or infinite features")
    return features


def resampled(
    x: Any,
    y: Any,
    distance: Distance,
    seed: int,
    resamples: int = 1000,
    clusters: Sequence[str] | None = None,
) -> Floats:
    """Bootstrap replicates of ``distance(x, y)`` over the images of x, y kept fixed.

    What resampling does to the bias of the estimate is undone by each distance itself, see its
    ``resampled``. For ``fid`` they are spread around its expectation at this number of images.

    Args:
        x: features of the images under test, shape (n, d), n ≥ 4.
        y: features of the reference images, shape (m, d), m ≥ 2.
        seed: of the resampling. With equal seeds the same rows of sets of equal size are drawn:
            sets of the same prompts and seeds are resampled jointly.
        resamples: how many; a few less for a handful of images, which may all be one.
        clusters: of each image of x, if whole clusters are to be drawn.

    Raises:
        ValueError: as ``Distance``; for fewer than four images in x.
    """
    x, y = checked_pair(x, y, least=4)
    names = list(map(str, range(len(x)))) if clusters is None else clusters
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    n = len(place)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    counts = counts[:, [place[name] for name in names]]
    # a resample that holds one image only has no pairs
    drawn = counts[(counts > 0).sum(1) > 1].astype(np.float64)
    drawn *= len(x) / drawn.sum(1, keepdims=True)  # where clusters differ in size
    return distance.resampled(x, y, drawn)
