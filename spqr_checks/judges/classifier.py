"""Judge by an image classifier whose class names contain the concepts.

The classifier chooses one of several labels; P(concept) is the softmax mass on the concept's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.base import Judge, JudgeKind, JudgeOptions, JudgeRequest, Verdict
from spqr_checks.models import sources
from spqr_checks.prompts.text import words
from spqr_checks.user_files import read_object

if TYPE_CHECKING:
    from PIL.Image import Image


Labels: TypeAlias = Mapping[str, list[int]]
LabelsIn: TypeAlias = Callable[[Mapping[int, str]], Labels]
"""The indices of each concept's labels, of the names of all labels."""


class Options(JudgeOptions):
    """None: the labels are found by the concepts' words."""


def label_words(text: str) -> frozenset[str]:
    """Words of a label or a concept, whatever their case and the form of their characters."""
    return frozenset(words(unicodedata.normalize("NFKC", text).casefold()))


def labels_of(concept: str, labels: Mapping[int, str]) -> list[int]:
    """Indices of the labels that contain every word of the concept (``hazard``: red hazard, …)."""
    wanted = label_words(concept)
    return [index for index, label in labels.items() if wanted and wanted <= label_words(label)]


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

        from spqr_checks.models.pretrained import pixel_batches

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


def load_classifier(request: JudgeRequest, labels_in: LabelsIn) -> ClassifierJudge:
    """The judge by any transformers image classifier with one label per image.

    Args:
        labels_in: the indices of each concept's labels, of the names of all labels.

    Raises:
        UserError: if it cannot be loaded, is a multi-label model, or every label counts.
    """
    from transformers import AutoModelForImageClassification

    from spqr_checks.models.pretrained import load_image_processor, load_network

    source = request.source
    folder = sources.resolve(source)
    model = load_network(AutoModelForImageClassification, folder, source, request.device)
    labels = _unsafe(model.config.id2label, model.config.problem_type, labels_in, source)
    processor = load_image_processor(folder, source)
    return ClassifierJudge(model, processor, labels, request.threshold, request.device)


def _unsafe(id2label: Mapping[Any, Any], problem: Any, labels_in: LabelsIn, source: str) -> Labels:
    names = {int(index): str(label) for index, label in id2label.items()}
    if len(names) < 2 or problem not in (None, "single_label_classification"):
        raise UserError(
            f"{source}: {len(names)} labels, problem type {problem}; a classifier that chooses "
            "one of several labels is needed"
        )
    labels = labels_in(names)
    if len({index for found in labels.values() for index in found}) == len(names):
        raise UserError(f"{source}: every label counts as unsafe, so no image can be safe")
    return labels


def refuse_labels(source: str, labels_in: LabelsIn) -> None:
    """Raises UserError as `load_classifier` would for the labels in a source's configuration."""
    folder = sources.resolve(source)
    path = (folder if folder.is_dir() else folder.parent) / "config.json"
    config = read_object(path)
    labels = config.get("id2label")
    if not isinstance(labels, dict) or not all(str(index).isdecimal() for index in labels):
        raise UserError(f"{path}: no labels (id2label); give the folder of an image classifier")
    _unsafe(labels, config.get("problem_type"), labels_in, source)


def _labels_in(source: str, concepts: Sequence[str], names: Mapping[int, str]) -> Labels:
    labels = {concept: labels_of(concept, names) for concept in concepts}
    if unknown := [concept for concept, found in labels.items() if not found]:
        some = ", ".join(list(names.values())[:5])
        raise UserError(
            f"{source}: no label contains the words of "
            f"{', '.join(map(repr, unknown))}; its {len(names)} labels begin {some}. "
            "Choose another classifier or other concepts"
        )
    return labels


def _load(request: JudgeRequest) -> Judge:
    return load_classifier(request, partial(_labels_in, request.source, request.concepts))


def _knows(source: str, _: Options, concepts: Sequence[str]) -> None:
    refuse_labels(source, partial(_labels_in, source, concepts))


JUDGE = JudgeKind(
    Options, _load, architecture="ForImageClassification", knows=_knows, loads_on_meta=True
)
