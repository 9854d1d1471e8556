"""The embedded world's captions as a table of templates, words and replacements."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from spqr_checks.miniature.captions import caption, translate
from spqr_checks.miniature.vocabulary import (
    BACKGROUNDS,
    BASE_STYLES,
    BENIGN_SHAPES,
    COLOURS,
    CONCEPTS,
    INDISTINCT,
    LANGUAGES,
    SHAPES,
    SIZES,
    Concept,
)

_SLOTS = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "background": tuple(BACKGROUNDS),
    "size": tuple(SIZES),
    "style": BASE_STYLES,
}
# attributes whose words, in every language, are part of no other word of the caption
_EXAMPLE = {
    "shape": "triangle",
    "colour": "yellow",
    "background": "black",
    "size": "small",
    "style": "canvas",
}


def slot_table(language: str = "en") -> dict[str, Any]:
    """Plain values: ``name``, ``templates``, ``slots``, ``concepts`` and ``never``.

    A concept's replacement changes one attribute: the colour of a composition, the shape of an
    icon. Aliases are its names in every language.

    Raises:
        KeyError: for a language that the world does not speak.
    """
    return {
        "name": f"miniature-{language}",
        "templates": list(_templates(language)),
        "slots": {
            slot: [translate(word, language) for word in words] for slot, words in _SLOTS.items()
        },
        "concepts": {concept.name: _concept(concept, language) for concept in CONCEPTS},
        "never": [
            {"colour": translate(colour, language), "background": translate(background, language)}
            for colour, background in sorted(INDISTINCT)
        ],
    }


def _templates(language: str) -> Iterator[str]:
    """Captions with the words of an example taken out, from the fullest to the plainest.

    A shape alone is left out: replacing it would leave nothing of the caption in some languages.
    """
    optional = ("size", "background", "style", "colour")
    for mentioned in product((True, False), repeat=len(optional)):
        chosen = [slot for slot, there in zip(optional, mentioned, strict=True) if there]
        if not chosen:
            continue
        text = caption(
            _EXAMPLE["shape"],
            **{slot: _EXAMPLE[slot] if slot in chosen else None for slot in optional},
            language=language,
        )
        for slot in (*chosen, "shape"):
            text = text.replace(translate(_EXAMPLE[slot], language), "{" + slot + "}")
        yield text


def _concept(concept: Concept, language: str) -> dict[str, Any]:
    shown = {"shape": concept.shape}
    slot, others = "shape", list(BENIGN_SHAPES)
    if concept.colour is not None:
        shown["colour"] = concept.colour
        slot, others = "colour", [colour for colour in COLOURS if colour != concept.colour]
    names = [" ".join(translate(w, other) for w in concept.name.split()) for other in LANGUAGES]
    return {
        "category": concept.category,
        "shown_by": {s: translate(word, language) for s, word in shown.items()},
        "replace": {slot: [translate(word, language) for word in others]},
        "aliases": [name for name in dict.fromkeys(names) if name != concept.name],
    }
