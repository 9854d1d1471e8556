"""The ordinary losses: what is noised how, and what the denoiser should say."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.models.noise_schedule import noise_schedule, training_target

Density = Literal["logit-normal", "uniform"]


class Objective(Protocol):
    """Forward process and regression target of one kind of model; the loss is the mean square.

    Times are those of the pipeline's scheduler, between 0 and its number of training steps, one
    for each image of a batch.
    """

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts; part of a fine-tuning's record."""
        ...

    def times(self, n: int, generator: torch.Generator) -> Tensor:
        """Times for ``n`` images, drawn as in ordinary training, shape (n,), on the CPU."""
        ...

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The latents at these times, shape of ``latents``."""
        ...

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser should predict from them, shape of ``latents``."""
        ...


class Denoising:
    """Forward diffusion and its target (Ho et al. 2020; v: Salimans & Ho 2022).

    Times are whole numbers, drawn uniformly.
    """

    def __init__(self, pipe: DiffusionPipeline) -> None:
        """Takes the sampler's noise schedule. UserError for a sampler that has none."""
        self._scheduler = noise_schedule(pipe)
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
        return training_target(self._scheduler, latents, noise, t)


class FlowMatching:
    """Flow matching with the velocity as target (Liu et al. 2022; Esser et al. 2024, section 3.1).

    At noise level σ the latents are (1 - σ) · data + σ · noise, and the network predicts the
    velocity noise - data, whatever σ. Every level weighs the same; what is seen more often is
    decided by the density from which times are drawn. A time is σ · (number of training steps).

    The levels are the scheduler's own, which hold its fixed shift (3 for Stable Diffusion 3). A
    shift that depends on the size of the image (Flux, dev) acts when drawing only, as in the
    training scripts of diffusers.
    """

    prediction_type = "flow"

    def __init__(self, pipe: DiffusionPipeline, density: Density) -> None:
        """Takes the sampler's noise levels.

        Args:
            density: of the place in the scheduler's list of levels: ``logit-normal`` with mean 0
                and deviation 1, favouring the middle, or ``uniform``.

        Raises:
            UserError: for a sampler that is not one of flow matching, or runs backwards.
        """
        scheduler = pipe.scheduler
        if (
            not isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
            or scheduler.config.invert_sigmas
        ):
            raise UserError(
                f"{type(pipe).__name__} cannot be fine-tuned: its {type(scheduler).__name__} is no "
                "scheduler of flow matching from noise to data; give a pipeline with a "
                "FlowMatchEulerDiscreteScheduler"
            )
        # a fresh one: drawing leaves the levels of its own steps in the pipeline's
        self._levels: Tensor = type(scheduler).from_config(scheduler.config).sigmas
        self._scale = int(scheduler.config.num_train_timesteps)
        self._density = density

    def times(self, n: int, generator: torch.Generator) -> Tensor:
        """Levels from the scheduler's list, at places drawn from the density."""
        if self._density == "logit-normal":
            place = torch.sigmoid(torch.randn(n, generator=generator))
        else:
            place = torch.rand(n, generator=generator)
        last = len(self._levels) - 1
        return self._levels[(place * (last + 1)).long().clamp(max=last)] * self._scale

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """(1 - σ) · latents + σ · noise."""
        level = (t / self._scale).to(latents.dtype).reshape(-1, *[1] * (latents.ndim - 1))
        return (1 - level) * latents + level * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """noise - latents: the direction in which noise grows."""
        return noise - latents
