"""Training of the autoencoder on every style, so that fine-tuning data survives encoding."""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL

from spqr_checks.miniature import networks
from spqr_checks.miniature.training.pool import Pool
from spqr_checks.miniature.training.progress import Progress


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


def train(pool: Pool, seed: int, steps: int) -> AutoencoderKL:
    """Squared, absolute and edge errors with a light KL term; latents scaled to unit variance.

    The squared error is what keeps colours apart: an object's colour fills few pixels, and with
    absolute errors alone the autoencoder may settle for a plane of the colour cube.
    """
    torch.manual_seed(seed)
    vae = networks.autoencoder()
    optimiser = torch.optim.AdamW(vae.parameters(), 2e-3, weight_decay=0)
    batch = 24
    progress = Progress("autoencoder", steps, batch)
    for step in progress:
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * cosine
        x = pool.signed(torch.randint(0, len(pool), (batch,)))
        posterior = vae.encode(x).latent_dist
        z = posterior.sample()
        y = vae.decode(z).sample
        kl = posterior.kl().mean() / z[0].numel()
        error = y - x
        loss = 4 * (error**2).mean() + 0.5 * error.abs().mean() + 0.5 * _edges(y, x) + 4e-4 * kl
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        progress.note(loss.item())
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
