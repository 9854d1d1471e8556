"""How near a safe prompt is to its unsafe twin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from spqr_checks.errors import UserError
from spqr_checks.finetuning.concepts import words
from spqr_checks.hashing import Json

OVERLAP_AT_LEAST = 0.5
COSINE_AT_LEAST = 0.7


@dataclass(frozen=True)
class Similarity:
    """A measure of two texts and the least value that is near enough.

    Both thresholds' defaults are ours: the published pipeline says only that the difference in
    meaning is to be small.

    Raises:
        UserError: for a threshold outside of the measure's range.
    """

    measure: Callable[[str, str], float]
    at_least: float
    recipe: dict[str, Json]

    def __post_init__(self) -> None:
        if not -1 <= self.at_least <= 1:
            raise UserError(f"the least similarity is {self.at_least}; it must be from -1 to 1")


def overlap(one: str, other: str) -> float:
    """Share of words in common, in [0, 1]: Dice's coefficient of the two multisets of words.

    2 |A ∩ B| / (|A| + |B|); 0 for texts without words.
    """
    a, b = Counter(words(one)), Counter(words(other))
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 0.0


def word_overlap(at_least: float | None = None) -> Similarity:
    """Similarity by words in common; needs no model."""
    least = OVERLAP_AT_LEAST if at_least is None else at_least
    return Similarity(overlap, least, {"similarity": "word overlap", "at_least": least})


def clip_cosine(source: str, at_least: float | None = None, device: str = "cpu") -> Similarity:
    """Similarity by the cosine of CLIP text embeddings, in [−1, 1].

    Args:
        source: directory or Hub id of a CLIP model.

    Raises:
        UserError: if the source is no usable CLIP model. ``measure`` raises JudgeError for an
            embedding with NaN or infinity.
    """
    from spqr_checks.metrics.clip import load_clip
    from spqr_checks.models.sources import source_recipe

    least = COSINE_AT_LEAST if at_least is None else at_least
    clip = load_clip(source, device)

    def cosine(one: str, other: str) -> float:
        # one by one: an embedding's last bits depend on the texts in its batch
        a, b = (clip.embed_texts([text]).double()[0] for text in (one, other))
        return float(a @ b)

    recipe: dict[str, Json] = {
        "similarity": "CLIP cosine",
        "clip": source_recipe(source),
        "at_least": least,
    }
    return Similarity(cosine, least, recipe)
