"""Image features by name. Light: a network is loaded when it is asked.

New features are one new file in this folder. Their name is the file's, and it defines
``FEATURES``, a `base.FeaturesKind`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from spqr_checks.errors import JudgeError
from spqr_checks.hashing import Json, digest
from spqr_checks.metrics.features.base import Extractor, FeaturesKind
from spqr_checks.metrics.naming import parse
from spqr_checks.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

SETTING = "features"
FEATURE_KINDS: Registry[FeaturesKind] = Registry(
    SETTING,
    "spqr_checks.metrics.features",
    "FEATURES",
    "spqr_checks.features",
    lambda found: isinstance(found, FeaturesKind),
    separator="_",
)
features_kind = FEATURE_KINDS.get


def features_recipe(spec: str, clip: str) -> dict[str, Json]:
    """What determines the features of given images.

    Raises:
        UserError: for unknown features, a source that is not there, or a missing package.
    """
    name, source = parse(FEATURE_KINDS, spec, clip)
    return _recipe(name, source)


def _recipe(name: str, source: str) -> dict[str, Json]:
    kind = features_kind(name)
    recipe = kind.needs.recipe(f"{SETTING} {name}", source, image_features, kind.load)
    return {**recipe, **FEATURE_KINDS.code(name)}


def image_features(
    images: Sequence[Image], spec: str, clip: str, device: str = "cpu"
) -> NDArray[np.float64]:
    """Features of images, shape (n, d).

    Args:
        spec: ``NAME`` or ``NAME=SOURCE``.
        clip: the run's CLIP model, which ``clip`` without a source takes.
        device: where the network computes.

    Raises:
        UserError: for unknown features or a network that cannot be loaded.
        JudgeError: for features that are missing or not finite.
    """
    import numpy as np

    name, source = parse(FEATURE_KINDS, spec, clip)
    content = digest(_recipe(name, source))
    rows = np.asarray(_loaded(name, source, content, device).features(images), dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(images) or rows.shape[1] == 0:
        raise JudgeError(f"features {name} have shape {rows.shape} for {len(images)} images")
    if not np.isfinite(rows).all():
        raise JudgeError(f"features {name} hold NaN or infinity")
    return rows


@lru_cache(maxsize=1)
def _loaded(name: str, source: str, content: str, device: str) -> Extractor:
    """``content`` is part of the key only: a changed directory is loaded anew."""
    return features_kind(name).load(source, device)
