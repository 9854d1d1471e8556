"""Distances by name, one file each. Light: imports no torch."""

from __future__ import annotations

from spqr_checks.metrics.distances.base import Distance
from spqr_checks.registry import Registry

DISTANCES: Registry[Distance] = Registry(
    "distance",
    "spqr_checks.metrics.distances",
    "DISTANCE",
    "spqr_checks.distances",
    lambda found: callable(found) and hasattr(found, "resampled"),
)
distance_named = DISTANCES.get
