"""Where in an image an object is, by CLIPSeg: for methods that look at nothing else.

Lüddecke & Ecker, "Image Segmentation Using Text and Image Prompts" (CVPR 2022), as transformers
has it. MACE's authors take Grounded-SAM-HQ; a model that transformers loads is our choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.models.sources import resolve

_BATCH = 8


@torch.no_grad()
def object_masks(
    pipe: DiffusionPipeline,
    latents: Tensor,
    texts: Sequence[str],
    source: str,
    threshold: float = 0.5,
) -> Tensor:
    """Masks of the latents' size, shape (n, height, width): 1 where the text's object is.

    Args:
        latents: finished latents, shape (n, channels, height, width).
        texts: what to look for, one per latent.
        source: folder or Hub id of a CLIPSeg model with its processor.
        threshold: least probability.

    Raises:
        UserError: no such model, or nothing was found in any of the images.
    """
    from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

    path = resolve(source)
    try:
        model = CLIPSegForImageSegmentation.from_pretrained(path, use_safetensors=True).eval()
        processor = CLIPSegProcessor.from_pretrained(path)
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise UserError(
            f"segmenter {source!r} is no CLIPSeg model in safetensors: {said}"
        ) from None
    model, parts = model.to(latents.device), list[Tensor]()
    for start in range(0, len(latents), _BATCH):
        some = latents[start : start + _BATCH].to(pipe.vae.dtype)
        pixels = pipe.vae.decode(some / pipe.vae.config.scaling_factor, return_dict=False)[0]
        images = pipe.image_processor.postprocess(pixels, output_type="pil")
        given = processor(
            text=list(texts[start : start + _BATCH]),
            images=images,
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        logits = model(**given.to(latents.device)).logits
        found = logits.view(len(images), 1, *logits.shape[-2:]).sigmoid()
        sized = F.interpolate(found, size=latents.shape[-2:], mode="bilinear", antialias=True)
        parts.append((sized[:, 0] >= threshold).float())
    masks = torch.cat(parts)
    if not masks.any():
        raise UserError(
            f"segmenter {source!r} found its object in none of {len(masks)} images; leave the "
            "option out, which looks everywhere"
        )
    return masks
