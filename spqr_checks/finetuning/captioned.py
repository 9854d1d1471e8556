"""Images with their captions: what a fine-tuning learns from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from PIL import Image

from spqr_checks.hashing import digest


@dataclass(frozen=True)
class CaptionedImages:
    """RGB images of any size and one caption each, in the order of the data set."""

    images: list[Image.Image]
    captions: list[str]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.captions):
            raise ValueError(f"{len(self.images)} images, but {len(self.captions)} captions")

    def __len__(self) -> int:
        return len(self.images)

    def contents_digest(self) -> str:
        """Digest of pixels and captions in order, wherever they came from."""
        return digest(
            [
                [hashlib.sha256(image.tobytes()).hexdigest(), image.mode, *image.size, caption]
                for image, caption in zip(self.images, self.captions, strict=True)
            ]
        )
