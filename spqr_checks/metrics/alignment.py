"""Alignment of images with their prompts (CLIPScore's cosine, Hessel et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from spqr_checks.metrics.clip import load_clip


def prompt_alignment(
    images: Sequence[Image.Image], prompts: Sequence[str], source: str, device: str = "cpu"
) -> list[float]:
    """Cosine in [−1, 1] of each image's CLIP embedding with that of its own prompt.

    Raw cosines: neither multiplied (by 2.5 or 100) nor cut off at zero.

    Args:
        images: one per prompt.
        prompts: cut at the end of the model's context where longer.
        source: directory or Hub id of a CLIP model.
        device: where it computes.

    Raises:
        ValueError: if images and prompts differ in number.
        UserError: if the source is no usable CLIP model.
        JudgeError: for an embedding with NaN or infinity.
    """
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images but {len(prompts)} prompts")
    clip = load_clip(source, device)
    seen, said = clip.embed_images(images).double(), clip.embed_texts(prompts).double()
    cosines: list[float] = (seen * said).sum(-1).clamp(-1, 1).tolist()
    return cosines
