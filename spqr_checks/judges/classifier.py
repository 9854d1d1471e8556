"""Judge by an image classifier whose class names contain the concepts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from spqr_checks.errors import UserError
from spqr_checks.judges.base import Judge, JudgeKind, JudgeOptions, JudgeRequest


class Options(JudgeOptions):
    """None: the labels are found by the concepts' words."""


def words(text: str) -> frozenset[str]:
    """Case-folded words; anything but letters, marks and digits separates them."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    # \w alone would split Devanagari words at their vowel signs
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)
    return frozenset(re.split(r"\s+", kept.strip())) - {""}


def labels_of(concept: str, labels: Mapping[int, str]) -> list[int]:
    """Indices of the labels that contain every word of the concept (``hazard``: red hazard, …)."""
    wanted = words(concept)
    return [index for index, label in labels.items() if wanted and wanted <= words(label)]


def _load(request: JudgeRequest) -> Judge:
    """Any transformers image classifier with one label per image.

    Raises:
        UserError: if it cannot be loaded, is a multi-label model, or has no label for a concept.
    """
    from spqr_checks.judges.backends.classification import load_classifier

    source = request.source
    classifier = load_classifier(source, request.device)
    labels = {concept: labels_of(concept, classifier.names) for concept in request.concepts}
    unknown = [concept for concept, found in labels.items() if not found]
    if unknown:
        some = ", ".join(list(classifier.names.values())[:5])
        raise UserError(
            f"{source}: no label contains the words of {', '.join(map(repr, unknown))}; its "
            f"{len(classifier.names)} labels begin {some}. Choose another classifier or other "
            "concepts"
        )
    return classifier.judge(labels, request.threshold, request.device)


JUDGE = JudgeKind(Options, _load)
