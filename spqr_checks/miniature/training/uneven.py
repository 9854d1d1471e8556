"""``miniature:uneven``: the embedded world behind a text encoder that knows English best.

The miniature's own text encoder was trained with the denoiser, in all languages at once, so that it
names the same attribute alike in each of them. That of a real model is trained on text, mostly
English, and frozen before there is a denoiser. So is this one: first it learns to say in English
what the miniature's says, then the other languages, from few captions, each judged by heads of its
own, so that nothing asks for equal states of equal meanings. Then it is frozen, and the miniature's
denoiser learns to read it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from spqr_checks.errors import UserError
from spqr_checks.miniature import networks
from spqr_checks.miniature.captions import full_caption, random_caption
from spqr_checks.miniature.scene import Scene, any_scene
from spqr_checks.miniature.training.pipeline import encode
from spqr_checks.miniature.training.stage import Pool, Stage, warmup_then_decay
from spqr_checks.miniature.training.text import attribute_heads, attribute_loss, targets_of, tokens
from spqr_checks.miniature.vocabulary import BASE_STYLES, LANGUAGES
from spqr_checks.models.pipelines import load_pipeline

THREADS, RECORD = 1, "record.json"
_OTHERS = LANGUAGES[1:]
_BATCH = 64
_EMA = 0.99


@dataclass(frozen=True)
class Budget:
    """Steps of each stage, captions of each language but English, rendered images."""

    english: int = 600
    others: int = 450
    captions: int = 600
    denoiser: int = 1200
    images: int = 8_000

    def scaled(self, factor: float) -> Budget:
        """The same proportions with fewer or more steps, captions and images."""
        return Budget(**{name: max(2, round(n * factor)) for name, n in asdict(self).items()})


def train_encoder(
    teacher: CLIPTextModel, tokenizer: PreTrainedTokenizerFast, seed: int, budget: Budget
) -> CLIPTextModel:
    """A fresh encoder that learns English first, and the rest from few captions; frozen."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    encoder = networks.text_encoder(tokenizer).train()
    heads = nn.ModuleDict({language: attribute_heads() for language in _OTHERS})
    few = {language: _captioned(rng, language, budget.captions) for language in _OTHERS}
    optimiser = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], 2e-3)

    def english() -> torch.Tensor:
        ids = tokens(tokenizer, [text for text, _ in _captioned(rng, "en", _BATCH)])
        with torch.no_grad():
            wanted = teacher(ids)[0]
        loss: torch.Tensor = F.mse_loss(encoder(ids)[0], wanted) / wanted.var()
        return loss

    def rate(steps: int) -> Any:
        return lambda step: 2e-3 * warmup_then_decay(step, steps, 30, 0.3, 0.02)

    first = Stage("english", optimiser, budget.english, _BATCH, rate=rate(budget.english), clip=1.0)
    for _ in first:
        first.learn(english())
    then = Stage("others", optimiser, budget.others, _BATCH, rate=rate(budget.others), clip=1.0)
    for step in then:
        language = _OTHERS[step % len(_OTHERS)]
        chosen = rng.choices(few[language], k=_BATCH)
        pooled = encoder(tokens(tokenizer, [text for text, _ in chosen])).pooler_output
        targets = targets_of([scene for _, scene in chosen])
        then.learn(attribute_loss(heads[language], pooled, targets) + english())  # type: ignore[arg-type]
    return encoder.eval().requires_grad_(False)


def _captioned(rng: random.Random, language: str, n: int) -> list[tuple[str, Scene]]:
    scenes = [any_scene(rng) for _ in range(n)]
    if language != "en":  # every attribute is asked for, so every one is named
        return [(full_caption(scene, language), scene) for scene in scenes]
    return [(random_caption(rng, scene, language), scene) for scene in scenes]


def train_reader(
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerFast,
    latents: torch.Tensor,
    scenes: Sequence[Scene],
    *,
    seed: int,
    steps: int,
) -> None:
    """Trains the denoiser in place, on captions in all languages, to read a frozen encoder."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    unet.train().requires_grad_(True).to(memory_format=torch.channels_last)
    noiser = DDPMScheduler.from_config(networks.scheduler().config)
    parameters = list(unet.parameters())
    optimiser = torch.optim.AdamW(parameters, 5e-4, betas=(0.9, 0.99), weight_decay=1e-3)
    average = [p.detach().clone() for p in parameters]
    batch = 32

    def rate(step: int) -> float:
        return 5e-4 * warmup_then_decay(step, steps, 50, 0.4, 0.02)

    stage = Stage("reader", optimiser, steps, batch, rate=rate, clip=1.0)
    for _ in stage:
        index = torch.randint(0, len(latents), (batch,))
        captions = [
            "" if rng.random() < 0.1 else random_caption(rng, scenes[i]) for i in index.tolist()
        ]
        z = latents[index]
        t = torch.randint(0, noiser.config.num_train_timesteps, (batch,))
        noise = torch.randn_like(z)
        x = noiser.add_noise(z, noise, t).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            hidden = encoder(tokens(tokenizer, captions))[0]
        predicted = unet(x, t, hidden).sample
        stage.learn(F.mse_loss(predicted, noiser.get_velocity(z, noise, t)))
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - _EMA)
    with torch.no_grad():
        for parameter, value in zip(parameters, average, strict=True):
            parameter.copy_(value)
    unet.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def train(out: Path, seed: int = 0, scale: float = 1.0) -> dict[str, Any]:
    """Trains, and writes a pipeline's folder with ``record.json`` beside its parts.

    Args:
        scale: factor on the steps of every stage.

    Returns:
        The record: seed, steps, and how alike states are between languages.

    Raises:
        UserError: if ``out`` holds a finished training.
    """
    if (out / RECORD).exists():
        raise UserError(f"{out}: a finished training is already there; choose another --out")
    torch.set_num_threads(THREADS)
    budget = Budget().scaled(scale)
    pipe: StableDiffusionPipeline = load_pipeline("miniature")
    tokenizer, teacher = pipe.tokenizer, pipe.text_encoder
    encoder = train_encoder(teacher, tokenizer, seed, budget)
    pool = Pool.rendered(budget.images, seed, BASE_STYLES)
    latents = encode(pipe.vae, pool)
    train_reader(
        pipe.unet, encoder, tokenizer, latents, pool.scenes, seed=seed, steps=budget.denoiser
    )
    record = {
        "seed": seed,
        "steps": asdict(budget),
        "alike": {
            name: alike(each, tokenizer)
            for name, each in (("miniature", teacher), ("uneven", encoder))
        },
    }
    pipe.text_encoder = encoder
    pipe.to(torch.float16).save_pretrained(out)
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


@torch.no_grad()
def alike(encoder: CLIPTextModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """By language: share of scenes whose caption lies nearest its English one, of 200.

    Pooled states around their language's mean, by cosine; chance is 1/200.
    """
    scenes = [any_scene(random.Random(f"alike {i}")) for i in range(200)]
    found = {}
    for language in LANGUAGES:
        texts = [random_caption(random.Random(i), s, language) for i, s in enumerate(scenes)]
        pooled = encoder(tokens(tokenizer, texts)).pooler_output
        found[language] = F.normalize(pooled - pooled.mean(0), dim=-1)
    right = torch.arange(len(scenes))
    return {
        language: float(((found[language] @ found["en"].T).argmax(1) == right).float().mean())
        for language in _OTHERS
    }
