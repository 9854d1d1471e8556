"""Contrastive training of the small CLIP on captions of every language and style."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTextModel, PreTrainedTokenizerFast

from spqr_checks.miniature import networks
from spqr_checks.miniature.captions import random_caption
from spqr_checks.miniature.renderer import RESOLUTION
from spqr_checks.miniature.training.pool import Pool
from spqr_checks.miniature.training.progress import Progress, warmup_then_decay
from spqr_checks.miniature.training.text import ATTRIBUTES, UNMENTIONED, attribute_heads, tokens


def image_processor() -> CLIPImageProcessorPil:
    """CLIP's own preprocessing at 32 pixels, scaled to [-1, 1]."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": RESOLUTION},
        crop_size={"height": RESOLUTION, "width": RESOLUTION},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def train(
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
    heads = attribute_heads(networks.WIDTH)
    target_of = {
        name: torch.tensor([values.index(getattr(s, name)) for s in pool.scenes])
        for name, values in ATTRIBUTES.items()
    }
    grey = torch.tensor([s.style == "scan" for s in pool.scenes])
    for name in ("colour", "background"):
        target_of[name][grey] = UNMENTIONED
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, 1e-3, weight_decay=1e-2)
    batch = 128
    progress = Progress("clip", steps, batch)
    for step in progress:
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * warmup_then_decay(step, steps, 50, 0.3, 0.02)
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
        contrastive = (
            F.cross_entropy(logits, same / same.sum(1, keepdim=True))
            + F.cross_entropy(logits.T, same / same.sum(1, keepdim=True))
        ) / 2
        auxiliary = torch.stack(
            [F.cross_entropy(heads[name](seen), target_of[name][index]) for name in ATTRIBUTES]
        ).sum()
        loss = contrastive + max(0.0, 1 - step / (0.7 * steps)) * auxiliary
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        progress.note(contrastive.item())
    return model.eval()
