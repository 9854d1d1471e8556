"""A few images to learn from."""

from __future__ import annotations

import pytest

from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.datasets import load_images


@pytest.fixture(scope="session")
def scenes() -> CaptionedImages:
    """Twelve captioned images."""
    return load_images("miniature:stripes:12")
