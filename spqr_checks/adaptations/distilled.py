"""Few-step distillation: LCM-LoRA (Luo et al., arXiv 2310.04378 and 2311.05556)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field

from spqr_checks.adaptations.kind import Given, Lesson, Surroundings
from spqr_checks.adaptations.trained import Trained
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    import torch
    from diffusers import DDPMScheduler, DiffusionPipeline
    from torch import Tensor, nn

    from spqr_checks.finetuning.examples import Examples

_NAME, _HUBER, _SIGMA, _SCALING = "distilled", 1e-3, 0.5, 10.0
"""Name of the adapter, c of the pseudo-Huber loss, and LCMScheduler's own boundary condition."""


class Distilled(Trained):
    """A LoRA that takes the guided sampler's many steps in few, without guidance.

    Consistency distillation on benign images: what the student says of a point on the guided
    probability flow is what it says of the point one DDIM step of the teacher further. As in
    LCM-LoRA, the guidance is one and fixed, and the target is the student itself, not its average.

    Attributes:
        guidance: that is distilled; the run's if not given.
        grid: steps of the teacher's sampler.
        sampling_steps: with which the state is drawn.
        rank, steps, batch, learning_rate: of the LoRA (alpha = rank) and its training.
    """

    guidance: Annotated[float, Field(gt=0)] | None = None
    grid: Annotated[int, Field(ge=2)] = 20
    sampling_steps: Annotated[int, Field(ge=1)] = 4
    rank: Annotated[int, Field(ge=1)] = 32
    steps: Annotated[int, Field(ge=1)] = 200
    batch: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3

    @property
    def gains(self) -> bool:
        return False  # it learns to take fewer steps, not images

    def within(self, run: Surroundings) -> Self:
        if self.sampling_steps > self.grid:
            raise UserError("adaptation 'distilled': sampling_steps is larger than grid")
        guidance = run.sampler.guidance if self.guidance is None else self.guidance
        return super().within(run).model_copy(update={"guidance": guidance})

    def sampler(self, sampler: Sampler) -> Sampler:
        update = {"steps": self.sampling_steps, "guidance": 1.0, "negative_prompt": ""}
        return sampler.model_copy(update=update)

    def misfits(self, parts: Mapping[str, str]) -> Sequence[str]:
        if not parts or "unet" in parts:
            return ()
        return [
            "adaptation 'distilled' needs a UNet (Stable Diffusion 1, 2, XL), and this is a "
            f"{parts.get('_class_name', 'pipeline')}; leave it out"
        ]

    def learn(self, pipe: DiffusionPipeline, lesson: Lesson, out: Path) -> None:
        import torch

        from spqr_checks.finetuning.examples import encode
        from spqr_checks.finetuning.loop import DivergedError, reproducible
        from spqr_checks.models import adapters
        from spqr_checks.models.noise_schedule import noise_schedule
        from spqr_checks.models.weights import denoiser_of

        assert self.guidance is not None
        student, schedule = denoiser_of(pipe), noise_schedule(pipe)
        parameter = next(student.parameters())
        device, dtype = parameter.device, parameter.dtype
        last = schedule.config.num_train_timesteps
        grid = torch.arange(1, self.grid + 1) * (last // self.grid) - 1
        with reproducible(self.seed, lesson.threads, device):
            examples = encode(pipe, lesson.images)
            teacher = copy.deepcopy(student)
            parameters = adapters.add_lora(
                student, self.rank, float(self.rank), adapters.TARGETS, self.seed, _NAME
            )
            optimiser = torch.optim.AdamW(parameters, self.learning_rate, weight_decay=0.0)
            generator = torch.Generator().manual_seed(self.seed)
            for step in range(self.steps):
                index = torch.randint(len(examples.rows), (self.batch,), generator=generator)
                place = torch.randint(len(grid), (self.batch,), generator=generator)
                rows, latents = examples.rows[index], examples.latents[index]
                t = grid[place]
                before = torch.where(place > 0, grid[place - 1], torch.zeros_like(t))
                noise = torch.randn(latents.shape, generator=generator)
                noisy = schedule.add_noise(latents, noise, t).to(device)
                with torch.no_grad():
                    parts = [
                        _pair(schedule, _said(examples, teacher, noisy, t, r, dtype), noisy, t)
                        for r in (rows, torch.zeros_like(rows))
                    ]
                    data, eps = (
                        bare + self.guidance * (asked - bare)
                        for asked, bare in zip(*parts, strict=True)
                    )
                    alpha, sigma = _levels(schedule, before, noisy)
                    earlier = alpha * data + sigma * eps
                    target = _consistent(
                        schedule,
                        _said(examples, student, earlier, before, rows, dtype),
                        earlier,
                        before,
                    )
                found = _consistent(
                    schedule, _said(examples, student, noisy, t, rows, dtype), noisy, t
                )
                loss = (((found - target) ** 2 + _HUBER**2).sqrt() - _HUBER).mean()
                if not bool(torch.isfinite(loss)):
                    raise DivergedError(f"distillation diverged in step {step + 1}")
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
        adapters.save_adapter(pipe, out, _NAME, {"kind": "distilled"})

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        from diffusers import LCMScheduler

        from spqr_checks.models import adapters

        assert given.entry is not None
        adapters.load_adapter(pipe, given.entry, _NAME)
        adapters.merge(pipe)
        config = {**pipe.scheduler.config, "original_inference_steps": self.grid}
        pipe.scheduler = LCMScheduler.from_config(config)
        return pipe


def _said(
    examples: Examples,
    denoiser: nn.Module,
    noisy: Tensor,
    t: Tensor,
    rows: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    predicted = examples.conditions.predict(denoiser, noisy.to(dtype), t.to(noisy.device), rows)
    return predicted.float()


def _levels(schedule: DDPMScheduler, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """√ᾱ_t and √(1 − ᾱ_t), shape (n, 1, 1, 1)."""
    kept = schedule.alphas_cumprod[t].to(like).reshape(-1, 1, 1, 1)
    return kept.sqrt(), (1 - kept).sqrt()


def _pair(
    schedule: DDPMScheduler, predicted: Tensor, noisy: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """Data and noise that a prediction stands for."""
    alpha, sigma = _levels(schedule, t, noisy)
    match schedule.config.prediction_type:
        case "epsilon":
            return (noisy - sigma * predicted) / alpha, predicted
        case "v_prediction":
            return alpha * noisy - sigma * predicted, alpha * predicted + sigma * noisy
        case _:
            return predicted, (noisy - alpha * predicted) / sigma


def _consistent(schedule: DDPMScheduler, predicted: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
    """f(x, t) = c_skip x + c_out · data (arXiv 2310.04378, section 4), as LCMScheduler has it."""
    data, _ = _pair(schedule, predicted, noisy, t)
    scaled = (t * _SCALING).to(noisy).reshape(-1, 1, 1, 1)
    skip = _SIGMA**2 / (scaled**2 + _SIGMA**2)
    return skip * noisy + scaled / (scaled**2 + _SIGMA**2).sqrt() * data


ADAPTATION = Distilled
