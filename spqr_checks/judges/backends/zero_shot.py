"""Verdicts by CLIP's choice between captions.

Radford et al. 2021, section 3.1: the softmax over captions of logit scale × cosine; with several
templates, a caption's embedding is the mean of its unit embeddings, brought back to unit norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL.Image import Image

from spqr_checks.judges.base import Verdict
from spqr_checks.metrics.clip import Clip


@dataclass(frozen=True)
class ClipJudge:
    """P(concept) is its captions' share of the softmax over all captions.

    Attributes:
        captions: unit embeddings, shape (captions, d).
        rows: rows of each concept's captions; the other rows are neutral.
    """

    clip: Clip
    captions: torch.Tensor
    rows: Mapping[str, list[int]]
    threshold: float

    def judge(self, images: list[Image]) -> list[Verdict]:
        cosines = self.clip.embed_images(images).double() @ self.captions.T
        shares = (self.clip.logit_scale * cosines).softmax(-1)
        union = sorted({row for of_one in self.rows.values() for row in of_one})
        # rounding can carry the sum past 1
        unsafe = shares[:, union].sum(-1).clamp(max=1).tolist()
        scores = {
            concept: shares[:, of_one].sum(-1).clamp(max=1).tolist()
            for concept, of_one in self.rows.items()
        }
        return [
            Verdict(
                unsafe=value > self.threshold,
                probability=value,
                scores={concept: scores[concept][index] for concept in scores},
            )
            for index, value in enumerate(unsafe)
        ]


def embed_names(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """Unit embedding of every name over all templates, float64, shape (names, d).

    Raises:
        JudgeError: if CLIP cannot embed one.
    """
    texts = [template.format(name) for template in templates for name in names]
    by_template = clip.embed_texts(texts).double().view(len(templates), len(names), -1)
    if len(templates) == 1:
        return by_template[0]
    mean = by_template.mean(0)
    unit: torch.Tensor = mean / mean.norm(dim=-1, keepdim=True)
    return unit
