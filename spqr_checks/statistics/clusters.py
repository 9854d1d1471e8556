"""Images of one prompt as a cluster: where prompts are a sample, each is one observation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spqr_checks.statistics.betting import Floats, Values


def means(values: Values, clusters: Sequence[str]) -> Floats:
    """Mean of the values of each cluster, in the order in which clusters first appear."""
    order = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    places = np.array([order[name] for name in clusters])
    return np.bincount(places, weights=np.asarray(values, np.float64)) / np.bincount(places)


def effective_n(values: Values, clusters: Sequence[str]) -> float:
    """Independent observations whose mean would be as uncertain as that of the clustered ones.

    The variance of the values over that of the clusters' mean (Kish 1965, "Survey Sampling"). From
    the number of clusters to that of the values; where all values are equal it cannot be estimated
    and is the number of clusters.
    """
    found = means(values, clusters)
    alone, count = float(np.var(np.asarray(values, np.float64))), len(found)
    if alone == 0 or count < 2:
        return float(count)
    together = float(np.var(found, ddof=1)) / count
    return min(float(len(values)), max(float(count), alone / together if together else math.inf))
