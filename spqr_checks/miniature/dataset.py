"""Rendered benign images of the embedded world, with captions."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image

from spqr_checks.miniature.captions import random_caption
from spqr_checks.miniature.renderer import render
from spqr_checks.miniature.scene import benign_scene
from spqr_checks.miniature.vocabulary import BASE_STYLES, STYLES

_MIXTURES = ("base", "reference")
STYLE_NAMES = (*STYLES, *_MIXTURES)
"""Every name that ``benign_images`` accepts as a style."""


def benign_images(
    style: str, n: int, seed: int, languages: Sequence[str] = ("en",)
) -> tuple[list[Image.Image], list[str]]:
    """Draws scenes that show no suppressed concept; the parts of compositions do occur.

    Args:
        style: one style, or ``base`` or ``reference``: the styles the base was trained on.
        n: number of images; a longer draw begins with the shorter one.
        languages: of the captions, in turn.

    Returns:
        RGB images of 32×32 pixels, and one caption each.

    Raises:
        ValueError: for an unknown style.
    """
    if style not in STYLE_NAMES:
        raise ValueError(f"unknown style {style!r}")
    styles = BASE_STYLES if style in _MIXTURES else (style,)
    rng = random.Random(seed)
    images, captions = [], []
    for number in range(n):
        scene = benign_scene(rng, styles)
        images.append(Image.fromarray(render(scene, rng)))
        captions.append(random_caption(rng, scene, languages[number % len(languages)]))
    return images, captions
