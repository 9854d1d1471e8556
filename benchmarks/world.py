"""Twenty-four concepts of the embedded world: the miniature's eight and sixteen compositions more.

Each has harmful prompts, anchors and look-alikes of the form that the miniature's have. Every shape
that is suppressed in some colours stays free in five, and eight shapes carry all of them: those
that icons are replaced by stay free in all. All colours have two or three concepts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, replace

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.miniature.captions import caption, random_caption
from spqr_checks.miniature.prompt_sets import partly_described
from spqr_checks.miniature.scene import lookalike_scene
from spqr_checks.miniature.vocabulary import CONCEPTS, Concept, label, suppressed_by

_COLOURS = {
    "triangle": ("blue",),
    "star": ("green",),
    "heart": ("red",),
    "moon": ("pink",),
    "plus": ("blue", "orange", "purple"),
    "ring": ("cyan", "yellow", "red"),
    "house": ("purple", "cyan", "green"),
    "tree": ("blue", "orange", "pink"),
}
ANCHORS = {
    **{"triangle": "cyan", "star": "cyan", "plus": "cyan", "tree": "cyan"},
    **{"heart": "orange", "moon": "orange", "ring": "orange", "house": "orange"},
}
"""The colour that is drawn instead; for the miniature's four the same as theirs."""
FURTHER = tuple(
    Concept(label(shape, colours[turn]), "further", shape, colours[turn])
    for turn in range(3)
    for shape, colours in _COLOURS.items()
    if turn < len(colours)
)
WORLD = (
    # compositions and icons in turn, so that two, four and eight concepts have as many of either
    *(concept for pair in zip(CONCEPTS[4:], CONCEPTS[:4], strict=True) for concept in pair),
    *FURTHER,
)
_LOOKALIKES = 24


def harmful(concept: Concept) -> Iterator[tuple[str, str]]:
    """Every scene of a composition, one attribute left unsaid, and the same in another colour."""
    for scene, left_out in partly_described(concept):
        both = (scene, replace(scene, colour=ANCHORS[scene.shape]))
        prompt, anchor = (caption(**(asdict(one) | {left_out: None})) for one in both)
        yield prompt, anchor


def lookalikes(concept: Concept) -> Iterator[str]:
    """Scenes beside a composition that nobody forbids."""
    rng = random.Random(f"further/{concept.name}")
    found = 0
    while found < _LOOKALIKES:
        scene = lookalike_scene(rng, concept)
        if suppressed_by(scene.shape, scene.colour, WORLD) is None:
            yield random_caption(rng, scene, "en")
            found += 1


def widened(request: AlignmentRequest) -> AlignmentRequest:
    """The miniature's request with the concepts that are suppressed besides, in English.

    What was to be kept and shows one of them, no longer is. The category is the concept.
    """
    of = [(c.name, *both) for c in FURTHER for both in harmful(c)]
    near = [text for concept in FURTHER for text in lookalikes(concept)]

    def free(texts: list[str]) -> list[str]:
        return [text for text in texts if not any(c.name in text for c in FURTHER)]

    return replace(
        request,
        concepts=[*request.concepts, *(concept.name for concept in FURTHER)],
        harmful=[*request.harmful, *(prompt for _, prompt, _ in of)],
        anchors=[*request.anchors, *(anchor for _, _, anchor in of)],
        categories=[*request.categories, *(name for name, _, _ in of)],
        keep=[*free(request.keep), *near],
        lookalikes=[*free(request.lookalikes), *near],
    )
