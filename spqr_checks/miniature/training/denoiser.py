"""Joint training of the UNet and the text encoder on the base styles."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from spqr_checks.miniature import networks
from spqr_checks.miniature.captions import random_caption
from spqr_checks.miniature.scene import Scene
from spqr_checks.miniature.training.progress import Progress, warmup_then_decay
from spqr_checks.miniature.training.text import tokens

_CAPTION_DROPOUT = 0.1
_EMA = 0.999
_SNAPSHOT_EVERY = 500


def can_compile() -> bool:
    """Whether torch.compile has the C++ compiler that it needs; it is about a quarter faster."""
    return shutil.which("g++") is not None


def train(
    latents: torch.Tensor,
    scenes: list[Scene],
    tokenizer: PreTrainedTokenizerFast,
    encoder: CLIPTextModel,
    *,
    seed: int,
    steps: int,
    snapshot: Path,
) -> UNet2DConditionModel:
    """Uniform v loss, batch 32, AdamW 1e-3; returns the averaged (EMA) UNet.

    ``encoder`` is trained in place and left with its own averaged weights. The averaged weights
    so far are written to ``snapshot`` (safetensors) every 500 steps, so that a long training can
    be looked into.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    unet = networks.denoiser().to(memory_format=torch.channels_last)
    predict = torch.compile(unet) if can_compile() else unet
    noiser = DDPMScheduler.from_config(networks.scheduler().config)
    encoder.train()
    named = {f"unet.{k}": p for k, p in unet.named_parameters()}
    named |= {f"text_encoder.{k}": p for k, p in encoder.named_parameters()}
    parameters = list(named.values())
    optimiser = torch.optim.AdamW(
        parameters, 1e-3, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
    )
    average = [p.detach().clone() for p in parameters]
    batch = 32
    progress = Progress("denoiser", steps, batch)
    for step in progress:
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * warmup_then_decay(step, steps, 100, 0.4, 0.02)
        index = torch.randint(0, len(latents), (batch,))
        captions = [
            "" if rng.random() < _CAPTION_DROPOUT else random_caption(rng, scenes[i])
            for i in index.tolist()
        ]
        z = latents[index]
        t = torch.randint(0, noiser.config.num_train_timesteps, (batch,))
        noise = torch.randn_like(z)
        x = noiser.add_noise(z, noise, t).contiguous(memory_format=torch.channels_last)
        predicted = predict(x, t, encoder(tokens(tokenizer, captions))[0]).sample
        loss = F.mse_loss(predicted, noiser.get_velocity(z, noise, t))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        decay = min(_EMA, (2 + step) / (11 + step))
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        progress.note(loss.item())
        if (step + 1) % _SNAPSHOT_EVERY == 0:
            averaged = zip(named, average, strict=True)
            save_file({k: v.contiguous() for k, v in averaged}, snapshot)
    with torch.no_grad():
        for parameter, value in zip(parameters, average, strict=True):
            parameter.copy_(value)
    encoder.eval()
    return unet.eval()
