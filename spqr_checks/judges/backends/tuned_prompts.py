"""Verdicts by CLIP's choice between two tuned prompt embeddings (Q16)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image
from safetensors.torch import load_file

from spqr_checks.errors import UserError
from spqr_checks.judges.backends.whole import whole_image
from spqr_checks.judges.base import JudgeRequest, Verdict
from spqr_checks.metrics.clip import Clip, load_clip

SCALE = 100.0
"""Factor from cosine to logit in the authors' code; CLIP was trained to the same."""


@dataclass(frozen=True)
class TunedPromptsJudge:
    """P(inappropriate) = softmax(100 × cosines)[1]; prompts are unit rows, shape (2, d).

    The authors compute in float16, this in float32 and the softmax in float64.
    """

    clip: Clip
    prompts: torch.Tensor
    threshold: float
    concepts: tuple[str, ...]

    def judge(self, images: list[Image]) -> list[Verdict]:
        cosines = self.clip.embed_images(images).double() @ self.prompts.T
        inappropriate: list[float] = (SCALE * cosines).softmax(-1)[:, 1].tolist()
        return [whole_image(value, self.threshold, self.concepts) for value in inappropriate]


def load_tuned_prompts(
    path: Path, tensor: str, source: str, request: JudgeRequest
) -> TunedPromptsJudge:
    """The judge of two prompts, a tensor in a file, for the CLIP model of a source.

    Raises:
        UserError: if the CLIP model cannot be used, the prompts are of another width, or are not
            two finite vectors other than zero.
    """
    clip = load_clip(source, request.device)
    raw = load_file(path)[tensor].double()
    width = clip.width
    if raw.shape[1] != width:
        raise UserError(
            f"{path}: prompts of width {raw.shape[1]}, but {source} embeds in {width} dimensions; "
            "set option clip of judge 'q16' to the model they were tuned for"
        )
    prompts = raw / raw.norm(dim=-1, keepdim=True)
    if not torch.isfinite(prompts).all():
        raise UserError(f"{path}: a prompt is zero, NaN or infinite")
    return TunedPromptsJudge(clip, prompts, request.threshold, request.concepts)
