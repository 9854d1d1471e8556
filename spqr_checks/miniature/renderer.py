"""Draws a scene. The renderer knows the truth, so judges can be calibrated exactly."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from spqr_checks.miniature.scene import Scene
from spqr_checks.miniature.shapes import steps
from spqr_checks.miniature.vocabulary import BACKGROUNDS, COLOURS, SIZES

RESOLUTION = 32
_SUPERSAMPLING = 4

Pixels = NDArray[np.uint8]
_Plane = NDArray[np.float32]


def _mask(scene: Scene, radius: float, cx: float, cy: float, angle: float) -> _Plane:
    """Coverage of every pixel by the object, in [0, 1], shape (32, 32, 1)."""
    side = RESOLUTION * _SUPERSAMPLING
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    cos, sin = math.cos(angle), math.sin(angle)
    scale = radius * side / 2
    for points, filled in steps(scene.shape):
        placed = [
            (
                cx * _SUPERSAMPLING + scale * (x * cos - y * sin),
                cy * _SUPERSAMPLING + scale * (x * sin + y * cos),
            )
            for x, y in points
        ]
        draw.polygon(placed, fill=255 if filled else 0)
    if scene.style == "outline":
        inner = image.filter(ImageFilter.MinFilter(2 * int(1.2 * _SUPERSAMPLING) + 1))
        image = Image.fromarray(np.asarray(image) - np.asarray(inner))
    small = image.resize((RESOLUTION, RESOLUTION), Image.Resampling.BOX)
    return np.asarray(small, np.float32)[..., None] / 255.0


def _compose(scene: Scene, mask: _Plane, rng: random.Random) -> _Plane:
    """Colours, light and texture of the scene's style; values in [0, 255]."""
    noise = np.random.default_rng(rng.getrandbits(31))
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
        direction = rng.uniform(0, 2 * math.pi)
        light = 1 + 0.45 * (xx * math.cos(direction) + yy * math.sin(direction))
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
    radius = SIZES[scene.size] * rng.uniform(0.97, 1.03)
    reach = min(1.0, RESOLUTION * (1 - radius) / 2 * 0.75)
    cx = RESOLUTION / 2 + rng.uniform(-reach, reach)
    cy = RESOLUTION / 2 + rng.uniform(-reach, reach)
    mask = _mask(scene, radius, cx, cy, rng.uniform(-0.04, 0.04))
    return np.clip(_compose(scene, mask, rng), 0, 255).astype(np.uint8)


def render_all(scenes: Sequence[Scene], rng: random.Random) -> Pixels:
    """Draws many scenes; shape (n, 32, 32, 3), dtype uint8."""
    return np.stack([render(scene, rng) for scene in scenes])
