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

    @property
    def schedule(self) -> Tensor:
        """All times, from the cleanest to the noisiest, shape (times,), on the CPU."""
        ...

    def times(self, n: int, generator: torch.Generator, share: float = 1.0) -> Tensor:
        """Times for ``n`` images, drawn as in ordinary training, shape (n,), on the CPU.

        ``share``: of the schedule, from its clean end, that they are drawn from.
        """
        ...

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The latents at these times, shape of ``latents``."""
        ...

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser should predict from them, shape of ``latents``."""
        ...

    def noise_factor(self, t: Tensor) -> Tensor:
        """What squared errors of the target become squared errors of the noise by, shape of t.

        A prediction of the target is one of the noise as well, given the noisy latents.
        """
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

    @property
    def schedule(self) -> Tensor:
        """The timesteps 0, 1, …."""
        return torch.arange(self.timesteps)

    def times(self, n: int, generator: torch.Generator, share: float = 1.0) -> Tensor:
        """Uniform among the timesteps of the share."""
        return torch.randint(0, _kept(self.timesteps, share), (n,), generator=generator)

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """sqrt(ᾱ_t) · latents + sqrt(1 - ᾱ_t) · noise."""
        noisy: Tensor = self._scheduler.add_noise(latents, noise, t)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Noise (``epsilon``), velocity (``v_prediction``) or latents (``sample``)."""
        return training_target(self._scheduler, latents, noise, t)

    def noise_factor(self, t: Tensor) -> Tensor:
        """1, ᾱ_t for a velocity and ᾱ_t / (1 − ᾱ_t) for predicted latents.

        At one x_t, ε̂ − ε is √ᾱ_t (v̂ − v), and −√(ᾱ_t / (1 − ᾱ_t)) times the latents' error.
        """
        kept: Tensor = self._scheduler.alphas_cumprod.to(t.device)[t]
        match self.prediction_type:
            case "epsilon":
                return torch.ones_like(kept)
            case "v_prediction":
                return kept
            case _:
                return kept / (1 - kept)


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

    @property
    def schedule(self) -> Tensor:
        """The scheduler's levels, times the number of training steps."""
        return self._levels.flip(0) * self._scale

    def times(self, n: int, generator: torch.Generator, share: float = 1.0) -> Tensor:
        """Levels from the scheduler's list, at places drawn from the density.

        A share of the list takes the place of the whole, under the same density.
        """
        if self._density == "logit-normal":
            place = torch.sigmoid(torch.randn(n, generator=generator))
        else:
            place = torch.rand(n, generator=generator)
        total = len(self._levels)
        kept = _kept(total, share)
        index = total - kept + (place * kept).long()
        return self._levels[index.clamp(max=total - 1)] * self._scale

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """(1 - σ) · latents + σ · noise."""
        level = (t / self._scale).to(latents.dtype).reshape(-1, *[1] * (latents.ndim - 1))
        return (1 - level) * latents + level * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """noise - latents: the direction in which noise grows."""
        return noise - latents

    def noise_factor(self, t: Tensor) -> Tensor:
        """(1 − σ)²: at one x_t, noise = x_t + (1 − σ) · velocity."""
        return (1 - t / self._scale).square()


def _kept(total: int, share: float) -> int:
    return max(1, round(share * total))
