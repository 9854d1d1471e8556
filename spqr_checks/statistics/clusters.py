"""Images of one prompt as a cluster: where prompts are a sample, each is one observation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spqr_checks.statistics.betting import Floats, Values


def means(values: Values, clusters: Sequence[str]) -> Floats:
    """Mean of the values of each cluster, in the order in which clusters first appear."""
    order = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    places = np.array([order[name] for name in clusters])
    return np.bincount(places, weights=np.asarray(values, np.float64)) / np.bincount(places)


def effective_n(values: Values, clusters: Sequence[str]) -> float:
    """Independent observations of a rate that would be as uncertain as the clustered ones.

    Kish 1965 ("Survey Sampling"): the variance of a rate of independent observations over that of
    the clusters' mean. From the number of clusters to that of the values; where all values are
    equal it cannot be estimated and is the number of clusters.
    """
    found = means(values, clusters)
    rate, count = float(np.mean(values)), len(found)
    variance = float(np.var(found, ddof=1)) / count if count > 1 else 0.0
    if variance == 0:
        return float(count if rate in (0, 1) or count < 2 else len(values))
    return min(float(len(values)), max(float(count), rate * (1 - rate) / variance))
