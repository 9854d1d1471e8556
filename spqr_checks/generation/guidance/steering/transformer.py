"""An evaluation of a transformer by a pipeline, seen from outside and repeated for another prompt.

How a transformer is told of prompts is not taken apart here. What a pipeline tells its own of a
prompt, beside latents and time, is noted; to ask again is to make the same call with what was noted
of the other prompt.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from spqr_checks.errors import UserError

_LATENTS, _TIME = "hidden_states", "timestep"
_OFF = ("clean_caption", "use_resolution_binning")
"""What is never used when images are drawn (see ``generation.sampling``)."""


def refuse_unguided(pipe: DiffusionPipeline, kind: str) -> None:
    """UserError for a pipeline without classifier-free guidance, or one that is not known here."""
    from diffusers import (
        FluxPipeline,
        PixArtAlphaPipeline,
        PixArtSigmaPipeline,
        StableDiffusion3Pipeline,
    )

    name = type(pipe).__name__
    if isinstance(pipe, FluxPipeline):
        raise UserError(
            f"guidance {kind!r} needs a prediction without the prompt, and {name} makes none: its "
            "guidance is distilled into the transformer"
        )
    if not isinstance(pipe, (StableDiffusion3Pipeline, PixArtAlphaPipeline, PixArtSigmaPipeline)):
        raise UserError(
            f"guidance {kind!r} steers Stable Diffusion 1, 2, XL, 3 and 3.5 and PixArt; this "
            f"pipeline is a {name}"
        )


class _ToldError(Exception):
    """Ends a drawing, with what the transformer was about to be told."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        super().__init__("the drawing is stopped here")
        self.inputs = inputs


@torch.no_grad()
def told(pipe: DiffusionPipeline, prompt: str) -> dict[str, Tensor]:
    """What the pipeline tells its transformer of a prompt, by name, one row each."""
    own = pipe.scheduler
    off = inspect.signature(type(pipe).__call__).parameters.keys() & {*_OFF}

    def end(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _ToldError(_named(network, args, kwargs))

    hook = pipe.transformer.register_forward_pre_hook(end, with_kwargs=True)
    pipe.scheduler = type(own).from_config(own.config)
    pipe.set_progress_bar_config(disable=True)
    try:
        pipe(
            prompt,
            num_inference_steps=1,
            guidance_scale=1.0,
            generator=torch.Generator("cpu").manual_seed(0),
            output_type="latent",
            **dict.fromkeys(off, False),
        )
    except _ToldError as ended:
        inputs = ended.inputs.items()
        return {n: v for n, v in inputs if isinstance(v, Tensor) and n not in (_LATENTS, _TIME)}
    finally:
        pipe.scheduler = own
        hook.remove()
    raise UserError(f"{type(pipe).__name__} draws without asking its transformer")


@dataclass(frozen=True)
class TransformerEvaluation:
    """What a pipeline asked of its transformer, and what it predicted.

    With classifier-free guidance there are two rows per image: first all without the prompt, then
    all with it.

    Attributes:
        inputs: of the transformer, by name.
        predicted: shape of the latents; some networks predict a variance in further channels.
    """

    network: nn.Module
    inputs: Mapping[str, Any]
    predicted: Tensor

    @classmethod
    def of(
        cls, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> TransformerEvaluation:
        return cls(network, _named(network, args, kwargs), output[0])

    @property
    def sample(self) -> Tensor:
        """Scaled latents, shape (rows, channels, h, w)."""
        latents: Tensor = self.inputs[_LATENTS]
        return latents

    @property
    def t(self) -> Tensor:
        """The timestep, a scalar."""
        times: Tensor = self.inputs[_TIME]
        return times.flatten()[0]

    def of_prompt(self, prompt: Mapping[str, Tensor], rows: slice) -> Tensor:
        """The network's prediction in some of the rows for another prompt (see ``told``)."""
        given = {name: _rows(value, rows) for name, value in self.inputs.items()}
        n = len(given[_LATENTS])
        for name, value in prompt.items():
            given[name] = value.to(self.inputs[name]).expand(n, *value.shape[1:])
        predicted: Tensor = self.network(**given)[0]
        return predicted


def _named(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(inspect.signature(network.forward).bind(*args, **kwargs).arguments)


def _rows(value: Any, rows: slice) -> Any:
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, Mapping):
        return {name: _rows(part, rows) for name, part in value.items()}
    return value
