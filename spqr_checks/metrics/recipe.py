"""What determines the metrics of a run. Light: imports no torch."""

from __future__ import annotations

from spqr_checks.hashing import Json
from spqr_checks.metrics.adherence import ADHERENCES
from spqr_checks.metrics.distances import DISTANCES
from spqr_checks.metrics.features import FEATURE_KINDS
from spqr_checks.source_code import code_of

adherence_recipe = ADHERENCES.recipe
features_recipe = FEATURE_KINDS.recipe


def quality_recipe(features: str, clip: str, distance: str) -> dict[str, Json]:
    """What determines a distance between given sets of images.

    Raises:
        UserError: as `features_recipe`, and for an unknown distance.
    """
    code = code_of(DISTANCES.place(distance).module)
    added = {f"distance_{key}": value for key, value in DISTANCES.code(distance).items()}
    return features_recipe(features, clip) | {
        "distance": distance,
        "distance_code": code,
        **added,
    }
