"""A step of fine-tuning: ours, the plain way, and by the arithmetic of diffusers' examples.

The examples are ``train_text_to_image_lora.py``, and for profiles that train all weights
``train_text_to_image.py``: both encode images and captions at every step. The plain way encodes
once, as ours does. Steps are timed without the two that warm up.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spqr_checks.choices import Profile
from spqr_checks.finetuning import trainer
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.denoiser import select, working_copy
from spqr_checks.finetuning.examples import encode
from spqr_checks.finetuning.families.registry import family_of
from spqr_checks.models.remembered import forget


@dataclass(frozen=True)
class Took:
    """Seconds by the clock, and of the process's processors."""

    clock: float
    processor: float

    def __add__(self, other: Took) -> Took:
        return Took(self.clock + other.clock, self.processor + other.processor)

    def __sub__(self, other: Took) -> Took:
        return Took(self.clock - other.clock, self.processor - other.processor)

    def __mul__(self, factor: float) -> Took:
        return Took(self.clock * factor, self.processor * factor)


def our_step(pipe: Any, data: CaptionedImages, profile: Profile) -> Took:
    """A step of the trainer; what it encodes before the first is not in it."""
    ends: list[Took] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer.finetune(
            pipe,
            data,
            profile,
            0,
            Path(folder),
            torch.get_num_threads(),
            base_digest="benchmark",
            report=lambda *_: ends.append(_now(pipe)),
        )
    return _per_step(ends, profile)


def encoding(pipe: Any, data: CaptionedImages, profile: Profile) -> Took:
    """All of the data, as the trainer encodes them, with nothing remembered."""
    forget()
    start = _now(pipe)
    encode(pipe, data, profile.resolution)
    return _now(pipe) - start


def example_step(pipe: Any, data: CaptionedImages, profile: Profile) -> Took:
    """A step by the arithmetic of diffusers' example, all of the data in each."""
    return plain_step(pipe, data, profile, encodes=True)


def plain_step(pipe: Any, data: CaptionedImages, profile: Profile, encodes: bool = False) -> Took:
    """What the profile trains, with AdamW.

    Args:
        encodes: images and captions at every step, as diffusers' examples do, and not once.
    """
    latents, given = _encoded(pipe, data, profile.resolution)
    n, device = len(data), latents.device
    with working_copy(pipe) as unet:
        parameters = select(unet, family_of(pipe), profile, 0)
        unet.train()
        optimiser = torch.optim.AdamW(parameters, lr=profile.learning_rate)
        alphas = pipe.scheduler.alphas_cumprod.to(device)
        ends = []
        for _ in range(profile.steps or 1):
            if encodes:
                latents, given = _encoded(pipe, data, profile.resolution)
            noise = torch.randn_like(latents)
            t = torch.randint(0, len(alphas), (n,), device=device)
            a = alphas[t].view(-1, 1, 1, 1).to(latents.dtype)
            noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
            with torch.autocast(
                device.type, torch.bfloat16, enabled=latents.dtype != torch.float32
            ):
                predicted = unet(noisy, t, **given).sample
            loss = torch.nn.functional.mse_loss(predicted.float(), noise.float())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, profile.clip)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            loss.item()
            ends.append(_now(pipe))
    return _per_step(ends, profile)


@torch.no_grad()
def _encoded(
    pipe: Any, data: CaptionedImages, side: int | None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Latents, and what the denoiser is told beside them."""
    device, n = pipe.unet.device, len(data)
    images = [image.resize((side, side)) if side else image for image in data.images]
    pixels = pipe.image_processor.preprocess(images).to(device, pipe.vae.dtype)
    latents = pipe.vae.encode(pixels).latent_dist.sample() * pipe.vae.config.scaling_factor
    encoded = pipe.encode_prompt(
        data.captions, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    given: dict[str, Any] = {"encoder_hidden_states": encoded[0]}
    if len(encoded) == 4:
        sizes = [*images[0].size, 0, 0, *images[0].size]
        times = torch.tensor([sizes] * n, dtype=latents.dtype, device=device)
        given["added_cond_kwargs"] = {"text_embeds": encoded[2], "time_ids": times}
    return latents, given


def _now(pipe: Any) -> Took:
    if pipe.unet.device.type == "cuda":
        torch.cuda.synchronize()
    return Took(time.perf_counter(), time.process_time())


def _per_step(ends: list[Took], profile: Profile) -> Took:
    """Medians."""
    if len(ends) != profile.steps:
        sys.exit(f"{len(ends)} of {profile.steps} steps were run; nothing is reported")
    steps = [b - a for a, b in itertools.pairwise(ends[1:])]
    return Took(
        statistics.median(step.clock for step in steps),
        statistics.median(step.processor for step in steps),
    )
