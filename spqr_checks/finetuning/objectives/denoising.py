"""The denoising loss of diffusion models, whatever the network predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_NEEDED = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type")
_OPTIONAL = ("trained_betas", "rescale_betas_zero_snr")


class Denoising:
    """Forward diffusion and its target (Ho et al. 2020; v: Salimans & Ho 2022).

    Times are whole numbers, drawn uniformly.
    """

    def __init__(self, pipe: DiffusionPipeline) -> None:
        """Takes the sampler's noise schedule.

        Raises:
            UserError: for a sampler without a discrete noise schedule.
        """
        config = pipe.scheduler.config
        kind = config.get("prediction_type")
        if not set(config) >= set(_NEEDED) or kind not in ("epsilon", "v_prediction", "sample"):
            raise UserError(
                f"{type(pipe).__name__} cannot be fine-tuned: its {type(pipe.scheduler).__name__} "
                f"(prediction type {kind!r}) has no discrete noise schedule of betas; give a "
                "pipeline that has"
            )
        # not from_config: it leaves out what the sampler has by default, and for some of them
        # (LCM, TCD) the default schedule is not DDPM's
        fields = {name: config[name] for name in (*_NEEDED, *_OPTIONAL) if name in config}
        self._scheduler = DDPMScheduler(**fields)
        self.prediction_type: str = self._scheduler.config.prediction_type
        self.timesteps: int = self._scheduler.config.num_train_timesteps

    def times(self, n: int, generator: torch.Generator) -> Tensor:
        """Uniform among all timesteps of the schedule."""
        return torch.randint(0, self.timesteps, (n,), generator=generator)

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """sqrt(ᾱ_t) · latents + sqrt(1 - ᾱ_t) · noise."""
        noisy: Tensor = self._scheduler.add_noise(latents, noise, t)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Noise (``epsilon``), velocity (``v_prediction``) or latents (``sample``)."""
        match self.prediction_type:
            case "epsilon":
                return noise
            case "v_prediction":
                velocity: Tensor = self._scheduler.get_velocity(latents, noise, t)
                return velocity
            case _:
                return latents
