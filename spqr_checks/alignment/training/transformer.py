"""A transformer in training: asked, noised, drawn from and in part trained, by its family."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from spqr_checks.alignment.training import unet
from spqr_checks.alignment.training.latents import Generators, blocks, seeded
from spqr_checks.alignment.training.noising import Noiser
from spqr_checks.alignment.training.options import ErasingOptions, Trains
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.finetuning.families.base import Parts, TransformerFamily
from spqr_checks.models import adapters
from spqr_checks.models.weights import denoiser_of


class TransformerView:
    """A transformer, by its family of fine-tuning."""

    def __init__(
        self, pipe: DiffusionPipeline, sampler: Sampler, family: TransformerFamily
    ) -> None:
        self.pipe, self.family = pipe, family
        height, width = family.own_size(pipe)
        self.size = sampler.height or height, sampler.width or width
        self.noiser = Noiser(family.objective(pipe))
        self.predictor = _predict
        self.unguided = family.encode(pipe, [], self.size)
        scale = int(pipe.vae_scale_factor)
        self.rows, self.columns = self.size[0] // scale, self.size[1] // scale
        self.shape = int(pipe.vae.config.latent_channels), self.rows, self.columns
        self.targets, self.self_targets = family.targets, family.parts.self_targets

    def encode(self, texts: Sequence[str]) -> Any:
        """By the family; held in main memory."""
        return self.family.encode(self.pipe, texts, self.size)[1:]

    def draw(self, texts: Sequence[str], sampler: Sampler, guidance: float, seed: int) -> Tensor:
        """By the pipeline itself, in consecutive blocks with one generator each."""
        parts = list[Tensor]()
        for block in blocks(len(texts), sampler.batch):
            drawing = self.encode(texts[block]), seeded(seed + block.start)
            parts.append(self._call(denoiser_of(self.pipe), *drawing, sampler.steps, guidance))
        return torch.cat(parts)

    def draw_seeded(self, texts: Sequence[str], seeds: Sequence[int], sampler: Sampler) -> Tensor:
        """By the pipeline itself, with a generator for each image."""
        parts, rest = list[Tensor](), (sampler.steps, sampler.guidance)
        for block in blocks(len(texts), sampler.batch):
            drawing = self.encode(texts[block]), [*map(seeded, seeds[block])]
            parts.append(self._call(denoiser_of(self.pipe), *drawing, *rest))
        return torch.cat(parts)

    def edit(
        self,
        clean: Tensor,
        texts: Sequence[str],
        negative: Sequence[str],
        seeds: Sequence[int],
        sampler: Sampler,
        *,
        strength: float,
    ) -> Tensor:
        """By the pipeline itself, which is given noised latents and the last of its times.

        Where guidance is distilled (Flux) there is no place for negative prompts.
        """
        again = min(max(int(sampler.steps * strength), 1), sampler.steps)
        own, parts = self.pipe.scheduler, list[Tensor]()
        self.pipe.scheduler = scheduler = type(own).from_config(own.config)
        skipped = (sampler.steps - again) * int(getattr(scheduler, "order", 1))
        # below 1 pipelines leave guidance out
        rest = sampler.steps, max(sampler.guidance, 1.0)
        try:
            for block in blocks(len(texts), sampler.batch):
                generators, z = [*map(seeded, seeds[block])], clean[block]
                asked = denoiser_of(self.pipe), self.encode(texts[block])
                self._reach(0, *asked, seeded(0), *rest)  # now the pipeline has chosen its times
                noise = torch.stack([torch.randn(z.shape[1:], generator=g) for g in generators])
                x = self._noised(z, noise.to(z.device), scheduler, skipped)
                with _from_step(scheduler, skipped):
                    without = self.encode(negative[block])
                    drawing = *asked, generators, *rest
                    parts.append(self._call(*drawing, without=without, latents=x))
        finally:
            self.pipe.scheduler = own
        return torch.cat(parts)

    def _noised(self, clean: Tensor, noise: Tensor, scheduler: Any, step: int) -> Tensor:
        """What a pipeline is to be given as its latents, to draw on from a step of its schedule."""
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(step)
        add = getattr(scheduler, "add_noise", None)
        t = scheduler.timesteps[step : step + 1].expand(len(clean))
        x = scheduler.scale_noise(clean, t, noise) if add is None else add(clean, noise, t)
        # pipelines of diffusion multiply what they are given by this
        return self.family.given(x / getattr(scheduler, "init_noise_sigma", 1.0))

    def draw_partly(
        self, network: nn.Module, prompts: Any, generator: torch.Generator, **how: Any
    ) -> tuple[Tensor, Tensor]:
        """What the pipeline hands its denoiser at a random step, where it is stopped."""
        steps, margins = int(how["steps"]), how.get("margins", (0, 0))
        low = min(margins[0], steps - 1)
        high = max(steps - margins[1], low + 1)
        stop = int(torch.randint(low, high, (1,), generator=generator))
        x, t = self._reach(stop, network, prompts, generator, steps, how["guidance"])
        # guidance doubles the batch, with the prompts last
        x, t = x[-len(prompts) :], t.expand(len(x))[-len(prompts) :]
        x, t = self._seen(x, t)
        return x.float(), t

    def _reach(self, stop: int, network: nn.Module, *drawing: Any) -> tuple[Tensor, Tensor]:
        """What a drawing hands its denoiser in its call number ``stop``, before which it ends."""
        calls = 0

        def look(_network: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            nonlocal calls
            calls += 1
            if calls > stop:
                raise _ReachedError(
                    given[0] if given else named["hidden_states"], named["timestep"]
                )

        hook = network.register_forward_pre_hook(look, with_kwargs=True)
        try:
            self._call(network, *drawing)
        except _ReachedError as reached:
            return reached.x, torch.as_tensor(reached.t)
        finally:
            hook.remove()
        raise UserError(
            f"{type(self.pipe).__name__} asks its transformer less often than it has steps"
        )

    def _seen(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.family.seen(x, t, (self.rows, self.columns))

    def _call(
        self,
        network: nn.Module,
        prompts: Any,
        generator: Generators,
        steps: int,
        guidance: float,
        *,
        without: Any = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Finished latents, drawn by a network in the place of the pipeline's own.

        Args:
            without: what guidance has for no prompt, if not that of the pipeline.
            latents: where the drawing starts, as the pipeline takes them.
        """
        parameter, own = next(network.parameters()), self.pipe.transformer
        if without is None:
            without = self.unguided.repeated(len(prompts))
        given = prompts.inputs(without) | ({} if latents is None else {"latents": latents})
        for name, part in given.items():
            if isinstance(part, Tensor):
                dtype = parameter.dtype if part.is_floating_point() else part.dtype
                given[name] = part.to(parameter.device, dtype)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.transformer = network
        try:
            drawn = self.pipe(
                num_inference_steps=steps,
                guidance_scale=guidance,
                height=self.size[0],
                width=self.size[1],
                generator=generator,
                output_type="latent",
                **given,
            ).images
        finally:
            self.pipe.transformer = own
        return self._seen(drawn, torch.zeros(len(drawn)))[0].float()

    def trainable(self, options: ErasingOptions, seed: int) -> list[nn.Parameter]:
        """Of the transformer, by the parts that the family names."""
        student, parts = denoiser_of(self.pipe), self.family.parts
        student.requires_grad_(False)
        if options.rank:
            targets, alpha = lora_targets(parts, options.trains), options.alpha or options.rank
            made = adapters.add_lora(student, options.rank, alpha, targets, seed, name=unet.ADAPTER)
            return list(made)
        chosen = trained_weights(student, parts, options.trains)
        weights = [p for name, p in student.named_parameters() if name in chosen]
        for parameter in weights:
            parameter.requires_grad_(True)
        return weights


class _ReachedError(Exception):
    """Ends a drawing, with what the denoiser was about to be given."""

    def __init__(self, x: Tensor, t: Tensor) -> None:
        super().__init__("the drawing is stopped here")
        self.x, self.t = x, t


@contextmanager
def _from_step(scheduler: Any, skipped: int) -> Iterator[None]:
    """Whoever sets the scheduler's times is left with those after the first few."""
    choose = scheduler.set_timesteps

    @functools.wraps(choose)  # pipelines look at its parameters
    def choose_late(*given: Any, **named: Any) -> None:
        choose(*given, **named)
        scheduler.timesteps = scheduler.timesteps[skipped:]
        if hasattr(scheduler, "sigmas"):
            scheduler.sigmas = scheduler.sigmas[skipped:]

    scheduler.set_timesteps = choose_late
    try:
        yield
    finally:
        scheduler.set_timesteps = choose


def _predict(network: nn.Module, x: Tensor, t: Tensor, prompts: Any) -> Tensor:
    parameter = next(network.parameters())
    given = network, x.to(parameter.dtype), t, torch.arange(len(x))
    return cast(Tensor, prompts.predict(*given)).float()


def trained_weights(network: nn.Module, parts: Parts, trains: Trains) -> set[str]:
    """Names of a transformer's weights that belong to what the variant trains."""
    names = {name for name, _ in network.named_parameters()}
    attention = {name for name in names if re.search(parts.attention, name)}
    match trains:
        case "x":
            return attention
        case "x-strict":
            return {name for name in names if re.search(parts.keys, name)}
        case "u":
            return {name for name in names - attention if not name.startswith(parts.ends)}
        case "u-current":
            layers = [
                f"{path}."
                for path, module in network.named_modules()
                if isinstance(module, (nn.Linear, nn.Conv2d))
            ]
            return {name for name in names - attention if name.startswith(tuple(layers))}
        case "all":
            return names


def lora_targets(parts: Parts, trains: Trains) -> tuple[str, ...]:
    """Endings of the names of a transformer's layers that an adapter is put on."""
    match trains:
        case "x":
            return parts.attention_targets
        case "x-strict":
            return parts.keys_targets
        case "u" | "u-current":
            return parts.other_targets
        case "all":
            return (*parts.attention_targets, *parts.other_targets)
