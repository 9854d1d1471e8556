"""A small safety checker of the real class, beside the other parts of a saved pipeline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

_CONCEPTS = 17


def add_checker(folder: Path, like: Sequence[Image] = (), blocks_all: bool = False) -> list[bool]:
    """Give a pipeline folder a checker that blocks some of these images, and say which.

    Without images it blocks all or none.
    """
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessorPil

    from spqr_checks.models.pipelines import quiet

    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision = size | {"num_attention_heads": 2, "image_size": 8, "patch_size": 4}
    extractor = CLIPImageProcessorPil(
        size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}
    )
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        text = size | {"num_attention_heads": 2, "vocab_size": 10, "bos_token_id": 0}
        checker = StableDiffusionSafetyChecker(
            CLIPConfig(
                text_config=text | {"eos_token_id": 1}, vision_config=vision, projection_dim=8
            )
        ).eval()
        checker.concept_embeds.data = torch.randn(_CONCEPTS, 8)
        checker.special_care_embeds.data = torch.randn(3, 8)
    checker.special_care_embeds_weights.data.fill_(1.0)
    closest = _closest(checker, extractor, like) if like else []
    limit = -1.0 if blocks_all else 1.0
    if closest:
        # between the two that lie farthest apart: the checker rounds to three decimals
        ranked = sorted(closest)
        limit = max(pairwise(ranked), key=lambda pair: pair[1] - pair[0])[0] + 0.002
    checker.concept_embeds_weights.data.fill_(limit)
    with quiet():
        checker.save_pretrained(folder / "safety_checker")
        extractor.save_pretrained(folder / "feature_extractor")
    index = folder / "model_index.json"
    entries: dict[str, Any] = json.loads(index.read_text())
    entries["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    entries["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    index.write_text(json.dumps(entries | {"requires_safety_checker": True}))
    return [score > limit for score in closest]


def _closest(checker: Any, extractor: Any, images: Sequence[Image]) -> list[float]:
    """The cosine of each image with the concept that it is closest to."""
    from diffusers.pipelines.stable_diffusion.safety_checker import cosine_distance

    pixels = extractor(list(images), return_tensors="pt").pixel_values
    with torch.no_grad():
        embedded = checker.visual_projection(checker.vision_model(pixels)[1])
        cosines = cosine_distance(embedded, checker.concept_embeds)
    return [float(row.max()) for row in cosines]
