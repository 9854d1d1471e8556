"""Warm-up of the text encoder: name the attributes of a caption from its pooled state."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from spqr_checks.miniature import networks
from spqr_checks.miniature.captions import caption
from spqr_checks.miniature.scene import any_scene
from spqr_checks.miniature.training.progress import Progress, warmup_then_decay
from spqr_checks.miniature.vocabulary import BACKGROUNDS, COLOURS, LANGUAGES, SHAPES, SIZES, STYLES

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "background": tuple(BACKGROUNDS),
    "size": tuple(SIZES),
    "style": STYLES,
}
UNMENTIONED = -100


def attribute_heads(width: int) -> nn.ModuleDict:
    """One linear classifier per attribute."""
    return nn.ModuleDict({name: nn.Linear(width, len(v)) for name, v in ATTRIBUTES.items()})


def tokens(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> torch.Tensor:
    """Token ids padded to the encoder's length, shape (n, 32)."""
    encoded = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids
    return ids


def warm_up(tokenizer: PreTrainedTokenizerFast, seed: int, steps: int) -> CLIPTextModel:
    """Trains a fresh text encoder; without this the denoiser takes far longer to heed text."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    encoder = networks.text_encoder(tokenizer)
    heads = attribute_heads(networks.WIDTH)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, 2e-3)
    batch = 64
    progress = Progress("text encoder", steps, batch)
    for step in progress:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * warmup_then_decay(step, steps, 30, 0.0, 0.05)
        captions: list[str] = []
        targets: dict[str, list[int]] = {name: [] for name in ATTRIBUTES}
        for _ in range(batch):
            scene = any_scene(rng, STYLES)
            mentioned: dict[str, Any] = {
                name: getattr(scene, name) if name == "shape" or rng.random() < 0.7 else None
                for name in ATTRIBUTES
            }
            captions.append(caption(**mentioned, language=rng.choice(LANGUAGES)))
            for name, value in mentioned.items():
                targets[name].append(
                    UNMENTIONED if value is None else ATTRIBUTES[name].index(value)
                )
        pooled = encoder(tokens(tokenizer, captions)).pooler_output
        loss = torch.stack(
            [
                F.cross_entropy(heads[name](pooled), torch.tensor(targets[name]))
                for name in ATTRIBUTES
            ]
        ).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        progress.note(loss.item())
    return encoder.eval()
