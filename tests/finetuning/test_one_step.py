"""One step of fine-tuning in each family against the loss of its training script, written anew."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from real_classes import CLASSES, SIZE, VARIANTS
from safetensors.torch import load_file
from torch import Tensor
from tunings import profile

from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.loop import Loop
from spqr_checks.finetuning.trainer import finetune
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import denoiser_of

LR = 1e-3
Each = tuple[Tensor, Tensor, Tensor, list[str]]
Answer = tuple[Tensor, Tensor]


def diffusion(latents: Tensor, noise: Tensor, t: Tensor, betas: Tensor) -> Answer:
    """Noisy latents and the velocity."""
    kept = torch.cumprod(1 - betas, 0)[t][:, None, None, None]
    a, s = kept.sqrt(), (1 - kept).sqrt()
    return a * latents + s * noise, a * noise - s * latents


def unet(pipe: Any, network: Any, given: Each) -> Answer:
    latents, noise, t, captions = given
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    noisy, velocity = diffusion(latents, noise, t, betas)
    hidden = pipe.encode_prompt(captions, "cpu", 1, False)[0]
    is_velocity = pipe.scheduler.config.prediction_type == "v_prediction"
    return network(noisy, t, hidden).sample, velocity if is_velocity else noise


def unet_xl(pipe: Any, network: Any, given: Each) -> Answer:
    latents, noise, t, captions = given
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    noisy, _ = diffusion(latents, noise, t, betas)
    hidden, _, pooled, _ = pipe.encode_prompt(captions, do_classifier_free_guidance=False)
    sizes = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]] * len(t))
    added = {"text_embeds": pooled, "time_ids": sizes}
    return network(noisy, t, hidden, added_cond_kwargs=added).sample, noise


def stable_diffusion_3(pipe: Any, network: Any, given: Each) -> Answer:
    latents, noise, t, captions = given
    sigma = (t / 1000)[:, None, None, None]
    hidden, _, pooled, _ = pipe.encode_prompt(
        captions, None, None, do_classifier_free_guidance=False
    )
    noisy = (1 - sigma) * latents + sigma * noise
    return network(noisy, hidden, pooled, t).sample, noise - latents


def flux(pipe: Any, network: Any, given: Each) -> Answer:
    latents, noise, t, captions = given
    sigma = (t / 1000)[:, None, None, None]
    n, c, h, w = latents.shape
    noisy = (1 - sigma) * latents + sigma * noise
    hidden, pooled, text_ids = pipe.encode_prompt(captions, None)
    predicted = network(
        FluxPipeline._pack_latents(noisy, n, c, h, w),
        hidden,
        pooled,
        t / 1000,
        FluxPipeline._prepare_latent_image_ids(n, h // 2, w // 2, "cpu", torch.float32),
        text_ids,
        torch.ones(n) if network.config.guidance_embeds else None,
    ).sample
    factor = pipe.vae_scale_factor
    return FluxPipeline._unpack_latents(predicted, h * factor, w * factor, factor), noise - latents


def pixart(pipe: Any, network: Any, given: Each) -> Answer:
    latents, noise, t, captions = given
    noisy, _ = diffusion(latents, noise, t, torch.linspace(1e-4, 0.02, 1000))
    hidden, mask, *_ = pipe.encode_prompt(captions, do_classifier_free_guidance=False)
    sizes = {"resolution": None, "aspect_ratio": None}
    answer = network(noisy, hidden, t, sizes, encoder_attention_mask=mask).sample
    return answer.chunk(2, dim=1)[0], noise


THEIRS = {"sd1": unet, "sd2": unet, "sdxl": unet_xl, "sd3": stable_diffusion_3}
THEIRS |= {"flux": flux, "flux-schnell": flux, "pixart": pixart}


@pytest.mark.parametrize("name", [*CLASSES, *VARIANTS])
def test_every_weight_is_where_the_step_of_the_script_takes_it(
    real_class: Callable[[str], Path],
    scenes: CaptionedImages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
    name: str,
) -> None:
    pipe = load_pipeline(str(real_class(name)))
    network = copy.deepcopy(denoiser_of(pipe)).requires_grad_(True)
    seen: list[tuple[Tensor, ...]] = []
    own = Loop._loss

    def note(self: Loop, *given: Tensor) -> Tensor:
        seen.append(given)
        return own(self, *given)

    monkeypatch.setattr(Loop, "_loss", note)
    chosen = profile("denoiser", steps=1, learning_rate=LR, resolution=SIZE)
    finetune(pipe, scenes, chosen, 3, tmp_path)
    ((latents, noise, t, rows),) = seen
    captions = ["", *dict.fromkeys(scenes.captions)]
    given = (latents, noise, t, [captions[row] for row in rows.tolist()])
    predicted, target = THEIRS[name](pipe, network, given)
    weights = [*network.parameters()]
    optimiser = torch.optim.AdamW(weights, LR, betas=(0.9, 0.999), weight_decay=1e-2)
    ((predicted - target) ** 2).mean().backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimiser.step()
    ours = load_file(tmp_path / "denoiser.safetensors")
    apart = torch.cat([(ours[n] - p).abs().flatten() for n, p in network.state_dict().items()])
    # Adam's step is long where a gradient is nothing but rounding, too
    assert (apart > LR / 100).float().mean() < 1e-3
    assert apart.max() < LR
