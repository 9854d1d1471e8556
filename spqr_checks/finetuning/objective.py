"""The ordinary denoising loss, whatever a pipeline's network predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_NEEDED = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type")
_OPTIONAL = ("trained_betas", "rescale_betas_zero_snr")


class Objective:
    """Forward diffusion and regression target (Ho et al. 2020; v: Salimans & Ho 2022)."""

    def __init__(self, pipe: DiffusionPipeline) -> None:
        """Takes the sampler's noise schedule; errors as in ``check_supported``."""
        check_supported(pipe)
        config = pipe.scheduler.config
        # not from_config: it leaves out what the sampler has by default, and for some of them
        # (LCM, TCD) the default schedule is not DDPM's
        fields = {name: config[name] for name in (*_NEEDED, *_OPTIONAL) if name in config}
        self._scheduler = DDPMScheduler(**fields)
        self.prediction_type: str = self._scheduler.config.prediction_type
        self.timesteps: int = self._scheduler.config.num_train_timesteps

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


def check_supported(pipe: DiffusionPipeline) -> None:
    """Raises UserError for a pipeline whose ordinary loss is not this one.

    Supported are Stable Diffusion 1, 2 and XL and their relatives: a UNet over the latents of an
    autoencoder, conditioned on text alone, with a discrete noise schedule.
    """
    name = type(pipe).__name__
    unet = getattr(pipe, "unet", None)
    if not isinstance(unet, UNet2DConditionModel) or not hasattr(pipe, "encode_prompt"):
        raise UserError(f"{name} cannot be fine-tuned: only pipelines with a UNet can")
    config = unet.config
    if config.in_channels != pipe.vae.config.latent_channels:
        raise UserError(
            f"{name} cannot be fine-tuned: its UNet takes {config.in_channels} channels, its "
            f"latents have {pipe.vae.config.latent_channels}; give a text-to-image pipeline"
        )
    foreign = [
        field
        for field in ("class_embed_type", "num_class_embeds", "time_cond_proj_dim")
        if config.get(field) is not None
    ]
    foreign += ["addition_embed_type"] * (config.addition_embed_type not in (None, "text_time"))
    foreign += ["latents_mean"] * (pipe.vae.config.get("latents_mean") is not None)
    if foreign:
        raise UserError(f"{name} cannot be fine-tuned: {foreign[0]} is not supported")
    schedule = pipe.scheduler.config
    kind = schedule.get("prediction_type")
    if not set(schedule) >= set(_NEEDED) or kind not in ("epsilon", "v_prediction", "sample"):
        raise UserError(
            f"{name} cannot be fine-tuned: its {type(pipe.scheduler).__name__} (prediction "
            f"type {kind!r}) has no discrete noise schedule of betas; give a pipeline that has"
        )
