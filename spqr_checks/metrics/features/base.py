"""What every kind of image features is. Light: imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from spqr_checks.metrics.needs import Needs

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
    """One kind of features: defined as ``FEATURES`` in a file of this folder.

    Attributes:
        load: (source, device) → extractor; imports what is heavy. Raises UserError.
    """

    load: Callable[[str, str], Extractor]
    needs: Needs
