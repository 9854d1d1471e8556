"""How near a back-translation is to what was translated."""

from __future__ import annotations

import unicodedata
from collections import Counter

from spqr_checks.prompts.text import normalised

_LONGEST = 6
_BETA = 2.0


def chrf(hypothesis: str, reference: str) -> float:
    """Character n-gram F-score, in [0, 1]; 1 for texts that differ in case and white space only.

    chrF2 (Popović 2015, W15-3049; β = 2): precision and recall of n-grams of 1 to 6 characters,
    each averaged over the lengths for which both texts have n-grams, white space left out. Ours is
    for short texts in any script: they are case-folded and composed (NFC) first, and without
    punctuation. A text of which then nothing is left is like nothing, 0.
    """
    one, other = _letters(hypothesis), _letters(reference)
    precisions, recalls = [], []
    for n in range(1, min(_LONGEST, len(one), len(other)) + 1):
        a, b = _grams(one, n), _grams(other, n)
        common = (a & b).total()
        precisions.append(common / a.total())
        recalls.append(common / b.total())
    if not precisions:
        return 0.0
    precision, recall = (sum(part) / len(part) for part in (precisions, recalls))
    below = _BETA**2 * precision + recall
    return (1 + _BETA**2) * precision * recall / below if below else 0.0


def _letters(text: str) -> str:
    return "".join(c for c in normalised(text) if unicodedata.category(c)[0] in "LMNS")


def _grams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))
