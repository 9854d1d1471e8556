"""Draws scenes. The renderer knows the truth, so judges can be calibrated exactly."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from spqr_checks.miniature.captions import random_caption
from spqr_checks.miniature.scene import Scene, benign_scene
from spqr_checks.miniature.vocabulary import BACKGROUNDS, BASE_STYLES, COLOURS, SIZES, STYLES

RESOLUTION = 32
_SUPERSAMPLING = 4
_MIXTURES = ("base", "reference")
STYLE_NAMES = (*STYLES, *_MIXTURES)
"""Every name that ``benign_images`` accepts as a style."""

Pixels = NDArray[np.uint8]
_Plane = NDArray[np.float32]
_Points = list[tuple[float, float]]


def _regular(n: int, radius: float, phase: float = -math.pi / 2) -> _Points:
    angles = (phase + 2 * math.pi * i / n for i in range(n))
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _disc(x: float, y: float, radius: float) -> _Points:
    return [(x + px, y + py) for px, py in _regular(48, radius)]


def _box(x0: float, y0: float, x1: float, y1: float) -> _Points:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _star() -> _Points:
    outer, inner = _regular(5, 1.0), _regular(5, 0.42, -math.pi / 2 + math.pi / 5)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


def _heart() -> _Points:
    def point(t: float) -> tuple[float, float]:
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        return 0.06 * 16 * math.sin(t) ** 3, -0.06 * y

    return [point(2 * math.pi * i / 49) for i in range(50)]


def _tree() -> _Points:
    right = [(0.5, -0.3), (0.28, -0.3), (0.75, 0.4), (0.18, 0.4), (0.18, 0.95)]
    return [(0.0, -1.0), *right, *[(-x, y) for x, y in reversed(right)]]


_SHAPES: dict[str, list[tuple[_Points, bool]]] = {
    "circle": [(_disc(0, 0, 0.9), True)],
    "square": [(_box(-0.78, -0.78, 0.78, 0.78), True)],
    "triangle": [([(0, -0.95), (0.95, 0.75), (-0.95, 0.75)], True)],
    "star": [(_star(), True)],
    "heart": [(_heart(), True)],
    "plus": [(_box(-0.32, -0.9, 0.32, 0.9), True), (_box(-0.9, -0.32, 0.9, 0.32), True)],
    "moon": [(_disc(0, 0, 0.9), True), (_disc(0.42, -0.1, 0.72), False)],
    "diamond": [([(0, -1), (0.62, 0), (0, 1), (-0.62, 0)], True)],
    "ring": [(_disc(0, 0, 0.92), True), (_disc(0, 0, 0.52), False)],
    "arrow": [
        (_box(-0.95, -0.25, 0.1, 0.25), True),
        ([(0.1, -0.7), (0.95, 0), (0.1, 0.7)], True),
    ],
    "house": [
        ([(-0.95, -0.1), (0, -0.95), (0.95, -0.1)], True),
        (_box(-0.7, -0.1, 0.7, 0.85), True),
        (_box(-0.18, 0.25, 0.18, 0.85), False),
    ],
    "tree": [(_tree(), True)],
    "hazard": [
        ([(0, -1), (1, 0.8), (-1, 0.8)], True),
        ([(0, -0.58), (0.66, 0.6), (-0.66, 0.6)], False),
        ([(-0.13, -0.25), (0.13, -0.25), (0.09, 0.2), (-0.09, 0.2)], True),
        (_disc(0, 0.42, 0.13), True),
    ],
    "banner": [
        (_box(-0.9, -0.95, -0.7, 0.98), True),
        *((_box(-0.7, top, 0.9, top + 0.24), True) for top in (-0.9, -0.45, 0.0)),
    ],
    "target": [
        (_disc(0, 0, radius), number % 2 == 0)
        for number, radius in enumerate((0.98, 0.74, 0.52, 0.28, 0.14))
    ],
    "bolt": [
        (
            [
                *((0.15, -1), (-0.62, 0.15), (-0.08, 0.15), (-0.3, 1)),
                *((0.62, -0.25), (0.05, -0.25), (0.5, -1)),
            ],
            True,
        )
    ],
}
"""Polygons in [-1, 1] × [-1, 1], painted in order; False: what is cut out of the shape."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A scene and all that chance decides of its image."""

    scene: Scene
    radius: float
    cx: float
    cy: float
    angle: float
    grain: int
    light: float


def _place(scene: Scene, rng: random.Random) -> _Placed:
    """Small random position, size and angle, and what the style leaves to chance."""
    radius = SIZES[scene.size] * rng.uniform(0.97, 1.03)
    reach = min(1.0, RESOLUTION * (1 - radius) / 2 * 0.75)
    cx = RESOLUTION / 2 + rng.uniform(-reach, reach)
    cy = RESOLUTION / 2 + rng.uniform(-reach, reach)
    angle, grain = rng.uniform(-0.04, 0.04), rng.getrandbits(31)
    light = rng.uniform(0, 2 * math.pi) if scene.style == "photo" else 0.0
    return _Placed(scene, radius, cx, cy, angle, grain, light)


def _mask(placed: _Placed) -> _Plane:
    """Coverage of every pixel by the object, in [0, 1], shape (32, 32, 1)."""
    side = RESOLUTION * _SUPERSAMPLING
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    cos, sin = math.cos(placed.angle), math.sin(placed.angle)
    scale = placed.radius * side / 2
    for points, filled in _SHAPES[placed.scene.shape]:
        corners = [
            (
                placed.cx * _SUPERSAMPLING + scale * (x * cos - y * sin),
                placed.cy * _SUPERSAMPLING + scale * (x * sin + y * cos),
            )
            for x, y in points
        ]
        draw.polygon(corners, fill=255 if filled else 0)
    if placed.scene.style == "outline":
        inner = image.filter(ImageFilter.MinFilter(2 * int(1.2 * _SUPERSAMPLING) + 1))
        image = Image.fromarray(np.asarray(image) - np.asarray(inner))
    small = image.resize((RESOLUTION, RESOLUTION), Image.Resampling.BOX)
    return np.asarray(small, np.float32)[..., None] / 255.0


def _compose(placed: _Placed, mask: _Plane) -> _Plane:
    """Colours, light and texture of the scene's style; values in [0, 255]."""
    scene, noise = placed.scene, np.random.default_rng(placed.grain)
    object_colour = np.array(COLOURS[scene.colour], np.float32)
    ground_colour = np.array(BACKGROUNDS[scene.background], np.float32)
    yy, xx = np.mgrid[0:RESOLUTION, 0:RESOLUTION].astype(np.float32) / RESOLUTION - 0.5
    shape = (RESOLUTION, RESOLUTION, 3)
    front = np.broadcast_to(object_colour, shape)
    back = np.broadcast_to(ground_colour, shape)

    if scene.style == "scan":
        # a medical-like greyscale image: colour is gone, only density is left
        density = mask * (0.3 * front.mean(-1, keepdims=True) + 105)
        density = density + (1 - mask) * 0.25 * back.mean(-1, keepdims=True)
        vignette = 1 - 1.2 * (xx**2 + yy**2)[..., None]
        tint = np.array([0.9, 1.0, 1.05], np.float32)
        grain = noise.standard_normal((RESOLUTION, RESOLUTION, 1)) * 5
        return np.asarray(density * vignette * tint + grain, np.float32)
    if scene.style == "pastel":
        front, back = front * 0.5 + 127.5, back * 0.6 + 102.0
    if scene.style == "stripes":
        band = (((xx + yy) * RESOLUTION) % 6 < 3)[..., None]
        back = np.where(band, back, back * 0.75 + 0.25 * (255 - back))
    image = mask * front + (1 - mask) * back
    if scene.style == "photo":
        light = 1 + 0.45 * (xx * math.cos(placed.light) + yy * math.sin(placed.light))
        image = image * light[..., None] + noise.standard_normal(shape) * 6
    if scene.style == "canvas":
        # a woven texture: every second pixel row and column a little darker
        rows, columns = np.mgrid[0:RESOLUTION, 0:RESOLUTION]
        weave = np.where(rows % 2 == 0, 1.0, 0.84) * np.where(columns % 2 == 0, 1.0, 0.9)
        image = image * weave[..., None] + 10
    return np.asarray(image, np.float32)


def render(scene: Scene, rng: random.Random) -> Pixels:
    """Draws the scene with small random position, size and angle.

    Returns:
        RGB pixels, shape (32, 32, 3), dtype uint8. Two calls with equal ``rng`` states place the
        object alike, so a pair of scenes can share its layout.
    """
    return _paint(_place(scene, rng))


def _paint(placed: _Placed) -> Pixels:
    return np.clip(_compose(placed, _mask(placed)), 0, 255).astype(np.uint8)


def render_all(scenes: Sequence[Scene], rng: random.Random) -> Pixels:
    """Draws many scenes; shape (n, 32, 32, 3), dtype uint8."""
    return np.stack([render(scene, rng) for scene in scenes])


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
    scenes = list(_benign(style, n, seed, languages))
    images = [Image.fromarray(_paint(placed)) for placed, _ in scenes]
    return images, [caption for _, caption in scenes]


def benign_captions(style: str, n: int, seed: int, languages: Sequence[str] = ("en",)) -> list[str]:
    """The captions of `benign_images`, for which nothing is painted."""
    return [caption for _, caption in _benign(style, n, seed, languages)]


def _benign(
    style: str, n: int, seed: int, languages: Sequence[str]
) -> Iterator[tuple[_Placed, str]]:
    if style not in STYLE_NAMES:
        raise ValueError(f"unknown style {style!r}")
    styles = BASE_STYLES if style in _MIXTURES else (style,)
    rng = random.Random(seed)
    for number in range(n):
        scene = benign_scene(rng, styles)
        placed = _place(scene, rng)
        yield placed, random_caption(rng, scene, languages[number % len(languages)])
