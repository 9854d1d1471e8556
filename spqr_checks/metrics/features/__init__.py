"""Image features by name. Light: a network is loaded when it is asked.

New features are one new file in this folder. Their name is the file's, and it defines
``FEATURES``, a `FeaturesKind`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from spqr_checks.errors import JudgeError
from spqr_checks.metrics.model_metrics import ModelMetrics, Needs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


class Extractor(Protocol):
    """Turns images into rows of features."""

    def features(self, images: Sequence[Image]) -> NDArray[np.float64]:
        """Shape (images, dimensions). Raises JudgeError if it cannot answer for all."""
        ...


@dataclass(frozen=True, slots=True)
class FeaturesKind:
    """One kind of features.

    Attributes:
        load: (source, device) → extractor; imports what is heavy. Raises UserError.
    """

    load: Callable[[str, str], Extractor]
    needs: Needs = field(default_factory=Needs)


FEATURE_KINDS = ModelMetrics("features", "FEATURES", FeaturesKind)


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

    extractor: Extractor = FEATURE_KINDS.loaded(spec, clip, device)
    rows = np.asarray(extractor.features(images), dtype=np.float64)
    name = FEATURE_KINDS.named(spec, clip).name
    if rows.ndim != 2 or len(rows) != len(images) or rows.shape[1] == 0:
        raise JudgeError(f"features {name} have shape {rows.shape} for {len(images)} images")
    if not np.isfinite(rows).all():
        raise JudgeError(f"features {name} hold NaN or infinity")
    return rows
