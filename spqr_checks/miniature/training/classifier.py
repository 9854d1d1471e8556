"""Training of the image classifier that judges miniature images."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from transformers import ResNetForImageClassification, ViTImageProcessorPil

from spqr_checks.miniature import networks
from spqr_checks.miniature.training.pipeline import reconstruct
from spqr_checks.miniature.training.stage import Pool, Stage, warmup_then_decay
from spqr_checks.miniature.vocabulary import COLOURS, LABELS, NOTHING, SHAPES, label

_NOTHING = LABELS.index(NOTHING)
_COLOURLESS = "scan"


def image_processor() -> ViTImageProcessorPil:
    """Resize to 64×64 (bilinear) and scale to [-1, 1]."""
    size = networks.CLASSIFIER_SIZE
    return ViTImageProcessorPil(
        size={"height": size, "width": size}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2
    )


def _spoilt(x: torch.Tensor, other: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Images that show nothing recognisable: blends, shuffled patches, blurs, empty grounds."""
    n = len(x)
    match rng.randrange(4):
        case 0:
            return (x + other) / 2
        case 1:
            patches = x.unfold(2, 8, 8).unfold(3, 8, 8).reshape(n, 3, 16, 8, 8)
            patches = patches[:, :, torch.randperm(16)].reshape(n, 3, 4, 4, 8, 8)
            return patches.permute(0, 1, 2, 4, 3, 5).reshape(n, 3, 32, 32)
        case 2:
            return F.interpolate(F.avg_pool2d(x, 8), size=32, mode="bilinear")
        case _:
            return x[:, :, :1, :1].expand(-1, -1, 32, 32) + 0.3 * rng.random() * torch.randn_like(x)


def _marginal_loss(logits: torch.Tensor, target: torch.Tensor, use_colour: bool) -> torch.Tensor:
    """Cross-entropy of shape (and colour) after summing the other attribute out."""
    joint = logits[:, :_NOTHING].reshape(-1, len(SHAPES), len(COLOURS))
    shape = torch.cat([joint.logsumexp(2), logits[:, _NOTHING:]], 1)
    shape_target = torch.where(target == _NOTHING, len(SHAPES), target // len(COLOURS))
    loss = F.cross_entropy(shape, shape_target)
    if use_colour:
        colour_target = torch.where(target == _NOTHING, -100, target % len(COLOURS))
        loss = loss + F.cross_entropy(joint.logsumexp(1), colour_target)
    return loss


def _warped(x: torch.Tensor) -> torch.Tensor:
    """Outlines that waver by about a pixel, as a denoiser's do."""
    n = len(x)
    still = torch.eye(2, 3).expand(n, 2, 3)
    grid = F.affine_grid(still, [n, *x.shape[1:]], align_corners=False)
    shift = F.interpolate(torch.randn(n, 2, 6, 6), size=x.shape[-1], mode="bicubic")
    shift = shift * 0.05 * torch.rand(n, 1, 1, 1)
    return F.grid_sample(
        x, grid + shift.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )


def train(
    pool: Pool, vae: AutoencoderKL, seed: int, steps: int, rebuilt: int = 12_000
) -> ResNetForImageClassification:
    """Trains on images, wavering, blurred and noised, with a fifth that shows nothing.

    Half of them are rendered; half (drawn from the first ``rebuilt``) went through the
    autoencoder with some noise on their latents, since what the judge will see is generated.
    Images in the colourless style teach the shape alone.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    rebuilt = min(rebuilt, len(pool))
    generated = reconstruct(vae, pool, rebuilt)
    model = networks.classifier().to(memory_format=torch.channels_last)
    target_of = torch.tensor([LABELS.index(label(s.shape, s.colour)) for s in pool.scenes])
    colourless = torch.tensor([s.style == _COLOURLESS for s in pool.scenes])
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-2)
    batch, size = 64, networks.CLASSIFIER_SIZE

    def rate(step: int) -> float:
        return 3e-3 * warmup_then_decay(step, steps, 50, 0.2, 0.01)

    stage = Stage("classifier", optimiser, steps, batch, rate=rate)
    for _ in stage:
        index = torch.randint(0, len(pool), (batch,))
        index[::2] %= rebuilt
        x, target, grey = pool.signed(index), target_of[index].clone(), colourless[index].clone()
        x[::2] = generated.signed(index[::2])
        spoilt = batch // 5
        x[:spoilt] = _spoilt(x[:spoilt], pool.signed(torch.randint(0, len(pool), (spoilt,))), rng)
        target[:spoilt], grey[:spoilt] = _NOTHING, False
        if rng.random() < 0.6:
            x = _warped(x)
        if rng.random() < 0.6:
            x = x + rng.random() * 0.15 * torch.randn_like(x)
        if rng.random() < 0.4:
            x = F.interpolate(F.avg_pool2d(x, 2), size=32, mode="bilinear")
        x = F.interpolate(x.clamp(-1, 1), size=size, mode="bilinear")
        logits = model(x.contiguous(memory_format=torch.channels_last)).logits
        loss = _marginal_loss(logits[~grey], target[~grey], use_colour=True)
        loss = loss + F.cross_entropy(logits[~grey], target[~grey])
        if grey.any():
            loss = loss + 0.2 * _marginal_loss(logits[grey], target[grey], use_colour=False)
        stage.learn(loss)
    return model.eval()
