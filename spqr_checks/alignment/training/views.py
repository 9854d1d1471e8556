"""A denoiser as trainings see it: how it is asked, noised, drawn from, and in part trained.

UNets have ways of their own here; transformers are what their family of fine-tuning says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from spqr_checks.alignment.method import transformer_family
from spqr_checks.alignment.training import latents, unet
from spqr_checks.alignment.training.options import ErasingOptions, Trains
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.finetuning.families.base import Parts, TransformerFamily
from spqr_checks.generation import conditions
from spqr_checks.models import adapters
from spqr_checks.models.weights import denoiser_of


class View(Protocol):
    """What trainings ask of a pipeline's denoiser; encoded prompts are records with rows."""

    predictor: Any
    """``(network, x, t, prompts)`` → prediction, shape of x."""
    noiser: Any
    """``(latents, generator, t=None)`` → (x_t, t)."""
    unguided: Any
    """What the pipeline's guidance takes for no prompt, one row."""

    def encode(self, texts: Sequence[str]) -> Any:
        """One row for each text."""
        ...

    def draw(self, texts: Sequence[str], sampler: Sampler, guidance: float, seed: int) -> Tensor:
        """Finished latents, as ``latents.draw``."""
        ...

    def draw_partly(
        self, network: nn.Module, prompts: Any, generator: torch.Generator, **how: Any
    ) -> tuple[Tensor, Tensor]:
        """x_t and t, as ``latents.draw_partly``."""
        ...

    def trainable(self, options: ErasingOptions, seed: int) -> list[nn.Parameter]:
        """As ``unet.trainable``."""
        ...


class UNetView:
    """Stable Diffusion 1, 2 and XL."""

    def __init__(self, pipe: DiffusionPipeline, sampler: Sampler) -> None:
        self.pipe = pipe
        self.predictor, self.noiser = unet.Predictor(pipe, sampler), unet.Noiser(pipe)
        self.unguided = conditions.unguided(pipe)

    def encode(self, texts: Sequence[str]) -> conditions.Conditions:
        """By the pipeline's text encoders."""
        return conditions.encode(self.pipe, texts)

    def draw(self, texts: Sequence[str], sampler: Sampler, guidance: float, seed: int) -> Tensor:
        """By the pipeline itself."""
        return latents.draw(self.pipe, texts, sampler, guidance, seed)

    def draw_partly(
        self, network: nn.Module, prompts: Any, generator: torch.Generator, **how: Any
    ) -> tuple[Tensor, Tensor]:
        """By the pipeline's scheduler."""
        given = self.pipe, self.predictor, network, prompts, self.unguided
        return latents.draw_partly(*given, generator=generator, **how)

    def trainable(self, options: ErasingOptions, seed: int) -> list[nn.Parameter]:
        """Of the UNet."""
        return unet.trainable(self.pipe.unet, options, seed)


class TransformerNoiser:
    """The forward process of a family's objective."""

    def __init__(self, pipe: DiffusionPipeline, family: TransformerFamily) -> None:
        self.objective = family.objective(pipe)

    def __call__(
        self, clean: Tensor, generator: torch.Generator, t: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Noises each latent to a time of its own, or to those given; returns (x_t, t)."""
        if t is None:
            t = self.objective.times(len(clean), generator)
        noise = torch.randn(clean.shape, generator=generator)
        t, noise = t.to(clean.device), noise.to(clean.device)
        return self.objective.noisy(clean, noise, t), t


class TransformerView:
    """A transformer, by its family of fine-tuning."""

    def __init__(
        self, pipe: DiffusionPipeline, sampler: Sampler, family: TransformerFamily
    ) -> None:
        self.pipe, self.family = pipe, family
        height, width = family.own_size(pipe)
        self.size = sampler.height or height, sampler.width or width
        self.noiser = TransformerNoiser(pipe, family)
        self.predictor = _predict
        self.unguided = family.encode(pipe, [], self.size)
        scale = int(pipe.vae_scale_factor)
        self.rows, self.columns = self.size[0] // scale, self.size[1] // scale
        self.channels = int(pipe.vae.config.latent_channels)

    def encode(self, texts: Sequence[str]) -> Any:
        """By the family; held in main memory."""
        return self.family.encode(self.pipe, texts, self.size)[1:]

    def draw(self, texts: Sequence[str], sampler: Sampler, guidance: float, seed: int) -> Tensor:
        """By the pipeline itself, in consecutive blocks with one generator each."""
        parts, network = list[Tensor](), denoiser_of(self.pipe)
        for start in range(0, len(texts), sampler.batch):
            prompts = self.encode(texts[start : start + sampler.batch])
            generator = torch.Generator("cpu").manual_seed(seed + start)
            drawn = self._call(network, prompts, generator, sampler.steps, guidance).images
            parts.append(self._seen(drawn, torch.zeros(len(drawn)))[0].float())
        return torch.cat(parts)

    def draw_partly(
        self, network: nn.Module, prompts: Any, generator: torch.Generator, **how: Any
    ) -> tuple[Tensor, Tensor]:
        """What the pipeline hands its denoiser at a random step, where it is stopped."""
        steps, margins = int(how["steps"]), how.get("margins", (0, 0))
        low = min(margins[0], steps - 1)
        high = max(steps - margins[1], low + 1)
        stop = int(torch.randint(low, high, (1,), generator=generator))
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
            self._call(network, prompts, generator, steps, how["guidance"])
        except _ReachedError as reached:
            x, t = reached.x, torch.as_tensor(reached.t)
        else:
            raise UserError(
                f"{type(self.pipe).__name__} asks its transformer less often than it has steps"
            )
        finally:
            hook.remove()
        # guidance doubles the batch, with the prompts last
        x, t = x[-len(prompts) :], t.expand(len(x))[-len(prompts) :]
        x, t = self._seen(x, t)
        return x.float(), t

    def _seen(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.family.seen(x, t, (self.rows, self.columns))

    def _call(
        self,
        network: nn.Module,
        prompts: Any,
        generator: torch.Generator,
        steps: int,
        guidance: float,
    ) -> Any:
        """Draws by a network in the place of the pipeline's own."""
        parameter, own = next(network.parameters()), self.pipe.transformer
        given = prompts.inputs(self.unguided.repeated(len(prompts)))
        for name, part in given.items():
            if isinstance(part, Tensor):
                dtype = parameter.dtype if part.is_floating_point() else part.dtype
                given[name] = part.to(parameter.device, dtype)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.transformer = network
        try:
            return self.pipe(
                num_inference_steps=steps,
                guidance_scale=guidance,
                height=self.size[0],
                width=self.size[1],
                generator=generator,
                output_type="latent",
                **given,
            )
        finally:
            self.pipe.transformer = own

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


def view_of(pipe: DiffusionPipeline, sampler: Sampler, method: str) -> View:
    """The view of a pipeline's denoiser. UserError: it is of no family that is known here."""
    if isinstance(getattr(pipe, "unet", None), nn.Module):
        return UNetView(pipe, sampler)
    return TransformerView(pipe, sampler, transformer_family(pipe, method))
