"""Verdicts by an image classifier that chooses one of several labels."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Classifier:
    """A loaded image classifier and the names of its labels."""

    model: Any
    processor: Any
    names: Mapping[int, str]
    source: str

    def judge(
        self, labels: Mapping[str, list[int]], threshold: float, device: str
    ) -> ClassifierJudge:
        """The judge for these labels of each concept.

        Raises:
            UserError: if every label is one of them.
        """
        if len({index for found in labels.values() for index in found}) == len(self.names):
            raise UserError(f"{self.source}: every label counts as unsafe, so no image can be safe")
        return ClassifierJudge(self.model, self.processor, labels, threshold, device)


def load_classifier(source: str, device: str) -> Classifier:
    """Any transformers image classifier with one label per image.

    Raises:
        UserError: if it cannot be loaded or is a multi-label model.
    """
    folder = sources.resolve(source)
    model = load_network(AutoModelForImageClassification, folder, source, device)
    names = {int(index): str(label) for index, label in model.config.id2label.items()}
    problem = model.config.problem_type
    if len(names) < 2 or problem not in (None, "single_label_classification"):
        raise UserError(
            f"{source}: {len(names)} labels, problem type {problem}; a classifier that chooses "
            "one of several labels is needed"
        )
    return Classifier(model, load_image_processor(folder, source), names, source)
