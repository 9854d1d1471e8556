"""How near two texts are: by words, by letters, or by CLIP."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from spqr_checks.errors import UserError
from spqr_checks.finetuning.concepts import folded
from spqr_checks.hashing import Json
from spqr_checks.prompts.text import normalised, words

OVERLAP_AT_LEAST = 0.5
COSINE_AT_LEAST = 0.7
_LONGEST = 6
_BETA = 2.0


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
    a, b = Counter(words(folded(one))), Counter(words(folded(other)))
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 0.0


def chrf(hypothesis: str, reference: str) -> float:
    """Character n-gram F-score, in [0, 1]; 1 for texts that differ in case and white space only.

    chrF2 (Popović 2015, W15-3049; β = 2): precision and recall of n-grams of 1 to 6 characters,
    each averaged over the lengths for which both texts have n-grams, white space left out. Ours is
    for short texts in any script: they are case-folded and composed (NFC) first, and without
    punctuation. A text of which then nothing is left is like nothing, 0.
    """
    one, other = (
        "".join(c for c in normalised(text) if unicodedata.category(c)[0] in "LMNS")
        for text in (hypothesis, reference)
    )
    shares = []
    for n in range(1, min(_LONGEST, len(one), len(other)) + 1):
        a, b = (Counter(t[i : i + n] for i in range(len(t) - n + 1)) for t in (one, other))
        common = (a & b).total()
        shares.append((common / a.total(), common / b.total()))
    if not shares:
        return 0.0
    precision, recall = (sum(part) / len(part) for part in zip(*shares, strict=True))
    below = _BETA**2 * precision + recall
    return (1 + _BETA**2) * precision * recall / below if below else 0.0


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

    made: dict[str, Json] = {"similarity": "CLIP cosine", "clip": source_recipe(source)}
    return Similarity(cosine, least, made | {"at_least": least})
