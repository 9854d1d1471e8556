"""The noise schedule that a model was trained with, as its sampler has it, and its target."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from torch import Tensor

from spqr_checks.errors import UserError

_NEEDED = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type")
_OPTIONAL = ("trained_betas", "rescale_betas_zero_snr")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")


def noise_schedule(pipe: DiffusionPipeline) -> DDPMScheduler:
    """The forward process x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε of the pipeline's sampler.

    Raises UserError for a sampler without a discrete noise schedule, or whose betas do not say it.
    """
    sampler, name = pipe.scheduler, type(pipe.scheduler).__name__
    config, refused = sampler.config, f"{type(pipe).__name__} cannot be fine-tuned or aligned: its"
    kind = config.get("prediction_type")
    if not set(config) >= set(_NEEDED) or kind not in _PREDICTIONS:
        raise UserError(
            f"{refused} {name} (prediction type {kind!r}) has no discrete noise schedule of betas; "
            "give a pipeline that has"
        )
    # not from_config: it leaves out what the sampler has by default, and for some of them
    # (LCM, TCD, Heun) the default schedule is not DDPM's
    fields = {field: config[field] for field in (*_NEEDED, *_OPTIONAL) if field in config}
    schedule = DDPMScheduler(**fields)
    kept = getattr(sampler, "alphas_cumprod", schedule.alphas_cumprod).to("cpu", torch.float32)
    if not torch.allclose(kept, schedule.alphas_cumprod, rtol=0, atol=1e-4):
        raise UserError(f"{refused} {name} shifts its noise schedule; give one that does not")
    return schedule


def training_target(schedule: DDPMScheduler, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the network is to predict from the latents at ``t``, shape of ``latents``.

    The noise (``epsilon``), the velocity (``v_prediction``; Salimans & Ho 2022) or the latents
    (``sample``), as the schedule says.
    """
    match schedule.config.prediction_type:
        case "epsilon":
            return noise
        case "v_prediction":
            velocity: Tensor = schedule.get_velocity(latents, noise, t)
            return velocity
        case _:
            return latents
