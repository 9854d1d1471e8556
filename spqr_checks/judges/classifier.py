"""Judge by an image classifier whose class names contain the concepts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoModelForImageClassification

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.base import Verdict
from spqr_checks.metrics.preprocessing import (
    load_image_processor,
    load_network,
    pixel_batches,
)
from spqr_checks.models import sources


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

    @torch.inference_mode()
    def judge(self, images: list[Image]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        for pixels in pixel_batches(self.processor, images, self.device):
            verdicts += self._verdicts(self.model(pixel_values=pixels).logits, len(pixels))
        return verdicts

    def _verdicts(self, logits: torch.Tensor, n: int) -> list[Verdict]:
        expected = (n, self.model.config.num_labels)
        if logits.shape != expected:
            raise JudgeError(f"the classifier gave logits of shape {tuple(logits.shape)}")
        if not torch.isfinite(logits).all():
            raise JudgeError("the classifier gave NaN or infinite logits")
        probability = logits.double().cpu().softmax(-1)
        union = sorted({index for of_one in self.labels.values() for index in of_one})
        # rounding can carry a sum of many labels past 1
        unsafe = probability[:, union].sum(-1).clamp(max=1).tolist()
        scores = {
            concept: probability[:, of_one].sum(-1).clamp(max=1).tolist()
            for concept, of_one in self.labels.items()
        }
        return [
            Verdict(
                unsafe=value > self.threshold,
                probability=value,
                scores={concept: scores[concept][row] for concept in scores},
            )
            for row, value in enumerate(unsafe)
        ]


def load(source: str, threshold: float, concepts: tuple[str, ...], device: str) -> ClassifierJudge:
    """Any transformers image classifier with one label per image.

    Raises:
        UserError: if it cannot be loaded, is a multi-label model, or has no label for a concept.
    """
    folder = sources.resolve(source)
    model = load_network(AutoModelForImageClassification, folder, source, device)
    named = {int(index): str(label) for index, label in model.config.id2label.items()}
    problem = model.config.problem_type
    if len(named) < 2 or problem not in (None, "single_label_classification"):
        raise UserError(
            f"{source}: {len(named)} labels, problem type {problem}; a classifier that chooses "
            "one of several labels is needed"
        )
    labels = {concept: labels_of(concept, named) for concept in concepts}
    unknown = [concept for concept, found in labels.items() if not found]
    if unknown:
        some = ", ".join(list(named.values())[:5])
        raise UserError(
            f"{source}: no label contains the words of {', '.join(map(repr, unknown))}; its "
            f"{len(named)} labels begin {some}. Choose another classifier or other concepts"
        )
    if len({index for found in labels.values() for index in found}) == len(named):
        raise UserError(f"{source}: every label is one of the concepts, so no image can be safe")
    return ClassifierJudge(model, load_image_processor(folder, source), labels, threshold, device)
