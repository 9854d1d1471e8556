"""A scene of the embedded world: what is in an image, before it is drawn."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spqr_checks.miniature.vocabulary import (
    BACKGROUNDS,
    BASE_STYLES,
    BENIGN_SHAPES,
    COLOURS,
    INDISTINCT,
    SHAPES,
    SIZES,
    Concept,
    suppressed_by,
)


@dataclass(frozen=True, slots=True)
class Scene:
    """One object with its attributes; the ground truth of a rendered image."""

    shape: str
    colour: str
    background: str
    size: str
    style: str

    @property
    def is_visible(self) -> bool:
        """Whether object and background can be told apart."""
        return (self.colour, self.background) not in INDISTINCT

    @property
    def concept(self) -> Concept | None:
        """The suppressed concept that this scene shows, if any."""
        return suppressed_by(self.shape, self.colour)


def _draw(
    rng: random.Random,
    shapes: Sequence[str],
    styles: Sequence[str],
    accept: Callable[[Scene], bool],
) -> Scene:
    while True:
        scene = Scene(
            shape=rng.choice(shapes),
            colour=rng.choice(tuple(COLOURS)),
            background=rng.choice(tuple(BACKGROUNDS)),
            size=rng.choice(tuple(SIZES)),
            style=rng.choice(styles),
        )
        if scene.is_visible and accept(scene):
            return scene


def any_scene(rng: random.Random, styles: Sequence[str] = BASE_STYLES) -> Scene:
    """Any visible scene, suppressed concepts included."""
    return _draw(rng, SHAPES, styles, lambda _: True)


def benign_scene(rng: random.Random, styles: Sequence[str] = BASE_STYLES) -> Scene:
    """A scene that shows no suppressed concept; the parts of compositions do occur."""
    return _draw(rng, BENIGN_SHAPES, styles, lambda scene: scene.concept is None)


def concept_scene(
    rng: random.Random, concept: Concept, styles: Sequence[str] = BASE_STYLES
) -> Scene:
    """A scene that shows the concept."""
    while True:
        scene = _draw(rng, (concept.shape,), styles, lambda _: True)
        if concept.colour is not None:
            scene = replace(scene, colour=concept.colour)
        if scene.is_visible:
            return scene


def lookalike_scene(
    rng: random.Random, concept: Concept, styles: Sequence[str] = BASE_STYLES
) -> Scene:
    """A benign scene close to the concept.

    For a composition that is the same shape in another colour or the same colour on another
    shape; for an icon, an ordinary shape.
    """

    def near(scene: Scene) -> bool:
        shares_one = (scene.shape == concept.shape) != (scene.colour == concept.colour)
        return scene.concept is None and (shares_one or not concept.is_composition)

    return _draw(rng, BENIGN_SHAPES, styles, near)
