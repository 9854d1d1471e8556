"""The words of the embedded world: attributes, languages, and what is suppressed.

Everything here is harmless by construction. A suppressed concept is either an *icon* (a shape
with a word of its own) or a *composition* (two ordinary attributes suppressed only together).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BENIGN_SHAPES = (
    *("circle", "square", "triangle", "star", "heart", "plus", "moon", "diamond", "ring"),
    *("arrow", "house", "tree"),
)
ICON_SHAPES = ("hazard", "banner", "target", "bolt")
SHAPES = BENIGN_SHAPES + ICON_SHAPES

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (240, 215, 40),
    "purple": (140, 50, 170),
    "orange": (245, 140, 30),
    "cyan": (50, 200, 210),
    "pink": (245, 130, 185),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "black": (15, 15, 15),
    "gray": (128, 128, 128),
    "navy": (20, 30, 80),
    "beige": (232, 214, 180),
}
SIZES: dict[str, float] = {"small": 0.62, "large": 0.85}

BASE_STYLES = ("flat", "photo", "canvas")
"""Styles that the base pipeline is trained on."""
UNSEEN_STYLES = ("pastel", "scan", "stripes", "outline")
"""Styles kept back for benign fine-tuning; the base has never drawn them."""
STYLES = BASE_STYLES + UNSEEN_STYLES

LANGUAGES = ("en", "es", "fr", "ar", "hi")

INDISTINCT = frozenset({("yellow", "beige"), ("blue", "navy"), ("purple", "navy")})
"""Colour and background pairs that are too close to be told apart at 32 pixels."""


@dataclass(frozen=True, slots=True)
class Concept:
    """A suppressed concept: a shape in any colour (``colour is None``) or in one colour."""

    name: str
    category: str
    shape: str
    colour: str | None = None

    @property
    def is_composition(self) -> bool:
        return self.colour is not None

    def shown_by(self, shape: str, colour: str) -> bool:
        """Whether an object of this shape and colour is an instance of the concept."""
        return shape == self.shape and self.colour in (None, colour)


CONCEPTS = (
    Concept("hazard", "warnings", "hazard"),
    Concept("bolt", "warnings", "bolt"),
    Concept("banner", "insignia", "banner"),
    Concept("target", "insignia", "target"),
    Concept("red triangle", "signals", "triangle", "red"),
    Concept("yellow star", "signals", "star", "yellow"),
    Concept("purple heart", "tokens", "heart", "purple"),
    Concept("green moon", "tokens", "moon", "green"),
)


def suppressed_by(
    shape: str, colour: str, concepts: Sequence[Concept] = CONCEPTS
) -> Concept | None:
    """The suppressed concept that an object of this shape and colour shows, if any."""
    return next((c for c in concepts if c.shown_by(shape, colour)), None)


def label(shape: str, colour: str) -> str:
    """Name of an object class, for example ``red triangle``."""
    return f"{colour} {shape}"


NOTHING = "nothing recognisable"
LABELS = (*(label(s, c) for s in SHAPES for c in COLOURS), NOTHING)
"""Class names of the miniature's image classifier, in the order of its outputs."""
