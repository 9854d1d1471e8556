"""Training of what reads captions: warm-up of the text encoder, and the small CLIP."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTextModel, PreTrainedTokenizerFast

from spqr_checks.miniature import networks
from spqr_checks.miniature.captions import caption, random_caption
from spqr_checks.miniature.renderer import RESOLUTION
from spqr_checks.miniature.scene import Scene, any_scene
from spqr_checks.miniature.training.stage import Pool, Stage, warmup_then_decay
from spqr_checks.miniature.vocabulary import BACKGROUNDS, COLOURS, LANGUAGES, SHAPES, SIZES, STYLES

_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "background": tuple(BACKGROUNDS),
    "size": tuple(SIZES),
    "style": STYLES,
}
_UNMENTIONED = -100


def attribute_heads() -> nn.ModuleDict:
    """One linear classifier per attribute."""
    return nn.ModuleDict(
        {name: nn.Linear(networks.WIDTH, len(v)) for name, v in _ATTRIBUTES.items()}
    )


def attribute_loss(
    heads: nn.ModuleDict, seen: torch.Tensor, targets: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Cross entropies of all attributes, summed."""
    losses = [F.cross_entropy(heads[name](seen), targets[name]) for name in _ATTRIBUTES]
    return torch.stack(losses).sum()


def targets_of(scenes: Sequence[Scene]) -> dict[str, torch.Tensor]:
    """Index of every attribute's value, shape (n,)."""
    return {
        name: torch.tensor([values.index(getattr(s, name)) for s in scenes])
        for name, values in _ATTRIBUTES.items()
    }


def tokens(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> torch.Tensor:
    """Token ids padded to the encoder's length, shape (n, 32)."""
    encoded = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids
    return ids


def warm_up(tokenizer: PreTrainedTokenizerFast, seed: int, steps: int) -> CLIPTextModel:
    """Trains a fresh text encoder to name the attributes of a caption from its pooled state.

    Without this the denoiser takes far longer to heed text.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    encoder = networks.text_encoder(tokenizer)
    heads = attribute_heads()
    optimiser = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], 2e-3)
    batch = 64

    def rate(step: int) -> float:
        return 2e-3 * warmup_then_decay(step, steps, 30, 0.0, 0.05)

    stage = Stage("text encoder", optimiser, steps, batch, rate=rate)
    for _ in stage:
        captions: list[str] = []
        targets = {name: torch.full((batch,), _UNMENTIONED) for name in _ATTRIBUTES}
        for row in range(batch):
            scene = any_scene(rng, STYLES)
            mentioned: dict[str, Any] = {
                name: getattr(scene, name) if name == "shape" or rng.random() < 0.7 else None
                for name in _ATTRIBUTES
            }
            captions.append(caption(**mentioned, language=rng.choice(LANGUAGES)))
            for name, value in mentioned.items():
                if value is not None:
                    targets[name][row] = _ATTRIBUTES[name].index(value)
        pooled = encoder(tokens(tokenizer, captions)).pooler_output
        stage.learn(attribute_loss(heads, pooled, targets))
    return encoder.eval()


def clip_processor() -> CLIPImageProcessorPil:
    """CLIP's own preprocessing at 32 pixels, scaled to [-1, 1]."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": RESOLUTION},
        crop_size={"height": RESOLUTION, "width": RESOLUTION},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def train_clip(
    pool: Pool, tokenizer: PreTrainedTokenizerFast, warmed: CLIPTextModel, seed: int, steps: int
) -> CLIPModel:
    """Symmetric InfoNCE (Radford et al. 2021) with an auxiliary attribute loss on images.

    The auxiliary heads fade out over the first 70 % of the steps and are thrown away; they
    only shorten the time until the vision tower sees shapes.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model = networks.clip(tokenizer)
    text_tower = {
        key.removeprefix("text_model."): value for key, value in warmed.state_dict().items()
    }
    model.text_model.load_state_dict(text_tower)
    heads = attribute_heads()
    target_of = targets_of(pool.scenes)
    grey = torch.tensor([s.style == "scan" for s in pool.scenes])
    for name in ("colour", "background"):
        target_of[name][grey] = _UNMENTIONED
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, 1e-3, weight_decay=1e-2)
    batch = 128

    def rate(step: int) -> float:
        return 1e-3 * warmup_then_decay(step, steps, 50, 0.3, 0.02)

    stage = Stage("clip", optimiser, steps, batch, rate=rate, clip=1.0)
    for step in stage:
        index = torch.randint(0, len(pool), (batch,))
        x = pool.signed(index)
        if rng.random() < 0.5:
            x = (x + rng.random() * 0.1 * torch.randn_like(x)).clamp(-1, 1)
        captions = [random_caption(rng, pool.scenes[i]) for i in index.tolist()]
        seen = model.vision_model(x).pooler_output
        image = F.normalize(model.visual_projection(seen), dim=-1)
        pooled = model.text_model(tokens(tokenizer, captions)).pooler_output
        text = F.normalize(model.text_projection(pooled), dim=-1)
        logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
        # equal captions in a batch are equally right answers
        same = torch.tensor([[a == b for b in captions] for a in captions]).float()
        right = same / same.sum(1, keepdim=True)
        contrastive = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
        auxiliary = attribute_loss(heads, seen, {k: v[index] for k, v in target_of.items()})
        stage.learn(contrastive + max(0.0, 1 - step / (0.7 * steps)) * auxiliary, contrastive)
    return model.eval()
