"""Training of the pipeline's networks: autoencoder, then UNet and text encoder together."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from spqr_checks.miniature import networks
from spqr_checks.miniature.captions import random_caption
from spqr_checks.miniature.scene import Scene
from spqr_checks.miniature.training.stage import Pool, Stage, warmup_then_decay
from spqr_checks.miniature.training.text import tokens

_CAPTION_DROPOUT = 0.1
_EMA = 0.999
_SNAPSHOT_EVERY = 500


def _edges(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """L1 distance of horizontal and vertical image gradients."""
    dx = (a[..., 1:] - a[..., :-1]) - (b[..., 1:] - b[..., :-1])
    dy = (a[..., 1:, :] - a[..., :-1, :]) - (b[..., 1:, :] - b[..., :-1, :])
    return dx.abs().mean() + dy.abs().mean()


@torch.no_grad()
def encode(vae: AutoencoderKL, pool: Pool) -> torch.Tensor:
    """Scaled latents (posterior means) of all images, shape (n, 4, 16, 16)."""
    index = torch.arange(len(pool))
    means = [vae.encode(pool.signed(part)).latent_dist.mean for part in index.split(128)]
    scaling: float = vae.config.scaling_factor
    return torch.cat(means) * scaling


def train_autoencoder(pool: Pool, seed: int, steps: int) -> AutoencoderKL:
    """Trained on every style, so that fine-tuning data survives encoding.

    Squared, absolute and edge errors with a light KL term; latents scaled to unit variance.

    The squared error is what keeps colours apart: an object's colour fills few pixels, and with
    absolute errors alone the autoencoder may settle for a plane of the colour cube.
    """
    torch.manual_seed(seed)
    vae = networks.autoencoder()
    optimiser = torch.optim.AdamW(vae.parameters(), 2e-3, weight_decay=0)
    batch = 24

    def rate(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01
        return 2e-3 * min(1.0, (step + 1) / 50) * cosine

    stage = Stage("autoencoder", optimiser, steps, batch, rate=rate, clip=1.0)
    for _ in stage:
        x = pool.signed(torch.randint(0, len(pool), (batch,)))
        posterior = vae.encode(x).latent_dist
        z = posterior.sample()
        y = vae.decode(z).sample
        kl = posterior.kl().mean() / z[0].numel()
        error = y - x
        pixels = 4 * (error**2).mean() + 0.5 * error.abs().mean()
        stage.learn(pixels + 0.5 * _edges(y, x) + 4e-4 * kl)
    vae.eval()
    vae.register_to_config(scaling_factor=1.0)
    spread = encode(vae, Pool(pool.images[:2000], pool.scenes[:2000])).std()
    vae.register_to_config(scaling_factor=float(1 / spread))
    return vae


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pool: Pool, n: int, noise: float = 0.4) -> Pool:
    """The first ``n`` images after encoding and decoding.

    Latents, of unit variance, get noise of a standard deviation between 0 and ``noise``.
    """
    decoded = []
    for part in torch.arange(n).split(128):
        z = vae.encode(pool.signed(part)).latent_dist.mean
        strength = noise * torch.rand(len(part), 1, 1, 1) / vae.config.scaling_factor
        y = vae.decode(z + strength * torch.randn_like(z)).sample.clamp(-1, 1)
        decoded.append(((y + 1) * 127.5).round().to(torch.uint8))
    return Pool(torch.cat(decoded), pool.scenes[:n])


@torch.no_grad()
def psnr(vae: AutoencoderKL, pool: Pool) -> float:
    """Peak signal-to-noise ratio of reconstructions, in dB."""
    squared = []
    for part in torch.arange(len(pool)).split(128):
        x = pool.signed(part)
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        squared.append(((y - x) ** 2).mean((1, 2, 3)))
    return float(10 * torch.log10(4 / torch.cat(squared).mean()))


def can_compile() -> bool:
    """Whether torch.compile has the C++ compiler that it needs; it is about a quarter faster."""
    return shutil.which("g++") is not None


def train_denoiser(
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

    def rate(step: int) -> float:
        return 1e-3 * warmup_then_decay(step, steps, 100, 0.4, 0.02)

    stage = Stage("denoiser", optimiser, steps, batch, rate=rate, clip=1.0)
    for step in stage:
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
        stage.learn(F.mse_loss(predicted, noiser.get_velocity(z, noise, t)))
        decay = min(_EMA, (2 + step) / (11 + step))
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        if (step + 1) % _SNAPSHOT_EVERY == 0:
            averaged = zip(named, average, strict=True)
            save_file({k: v.contiguous() for k, v in averaged}, snapshot)
    with torch.no_grad():
        for parameter, value in zip(parameters, average, strict=True):
            parameter.copy_(value)
    encoder.eval()
    return unet.eval()
