"""Judge by an image classifier whose class names contain the concepts.

The classifier chooses one of several labels; P(concept) is the softmax mass on the concept's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.base import Judge, JudgeKind, JudgeOptions, JudgeRequest, Verdict
from spqr_checks.models import sources

if TYPE_CHECKING:
    from PIL.Image import Image


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


@dataclass(frozen=True)
class ClassifierJudge:
    """P(concept) is the softmax mass on the concept's labels."""

    model: Any
    processor: Any
    labels: Mapping[str, list[int]]
    threshold: float
    device: str

    def judge(self, images: list[Image]) -> list[Verdict]:
        import torch

        from spqr_checks.metrics.preprocessing import pixel_batches

        verdicts: list[Verdict] = []
        with torch.inference_mode():
            for pixels in pixel_batches(self.processor, images, self.device):
                logits = self.model(pixel_values=pixels).logits
                if logits.shape != (len(pixels), self.model.config.num_labels):
                    raise JudgeError(f"the classifier gave logits of shape {tuple(logits.shape)}")
                if not torch.isfinite(logits).all():
                    raise JudgeError("the classifier gave NaN or infinite logits")
                shares = logits.double().cpu().softmax(-1)
                verdicts += Verdict.by_shares(shares, self.labels, self.threshold)
        return verdicts


def load_classifier(
    request: JudgeRequest, labels_in: Callable[[Mapping[int, str]], Mapping[str, list[int]]]
) -> ClassifierJudge:
    """The judge by any transformers image classifier with one label per image.

    Args:
        labels_in: the indices of each concept's labels, of the names of all labels.

    Raises:
        UserError: if it cannot be loaded, is a multi-label model, or every label counts.
    """
    from transformers import AutoModelForImageClassification

    from spqr_checks.metrics.preprocessing import load_image_processor, load_network

    source = request.source
    folder = sources.resolve(source)
    model = load_network(AutoModelForImageClassification, folder, source, request.device)
    names = {int(index): str(label) for index, label in model.config.id2label.items()}
    problem = model.config.problem_type
    if len(names) < 2 or problem not in (None, "single_label_classification"):
        raise UserError(
            f"{source}: {len(names)} labels, problem type {problem}; a classifier that chooses "
            "one of several labels is needed"
        )
    processor, labels = load_image_processor(folder, source), labels_in(names)
    if len({index for found in labels.values() for index in found}) == len(names):
        raise UserError(f"{source}: every label counts as unsafe, so no image can be safe")
    return ClassifierJudge(model, processor, labels, request.threshold, request.device)


def _load(request: JudgeRequest) -> Judge:
    def labels_in(names: Mapping[int, str]) -> Mapping[str, list[int]]:
        labels = {concept: labels_of(concept, names) for concept in request.concepts}
        if unknown := [concept for concept, found in labels.items() if not found]:
            some = ", ".join(list(names.values())[:5])
            raise UserError(
                f"{request.source}: no label contains the words of "
                f"{', '.join(map(repr, unknown))}; its {len(names)} labels begin {some}. "
                "Choose another classifier or other concepts"
            )
        return labels

    return load_classifier(request, labels_in)


JUDGE = JudgeKind(Options, _load, architecture="ForImageClassification")
