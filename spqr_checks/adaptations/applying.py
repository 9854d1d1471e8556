"""Puts an adaptation on a pipeline, and holds it to having done something. Heavy."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spqr_checks.adaptations.kind import AdaptationKind, Given, name_of
from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import carried_over
from spqr_checks.models.weights import named_weights, networks

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from spqr_checks.choices import Sampler

_PLAIN = (Tensor, nn.Parameter, nn.Buffer)


def apply_adaptation(
    pipe: DiffusionPipeline, kind: AdaptationKind, given: Given
) -> DiffusionPipeline:
    """The pipeline with an adaptation; the one that was given must not be used any more.

    Raises:
        UserError: as `kind.AdaptationKind.put_on`, and for an adaptation that should change weights
            but left every one of them as it was, or should draw otherwise and would draw as the
            run does: what was measured would be the released model.
    """
    held = kind.changes == "weights"
    before = weights_digests(pipe) if held else {}
    drawing = None if held or given.run is None else _drawing(pipe, given.run)
    adapted = kind.put_on(pipe, given)
    for network in networks(adapted).values():
        network.eval().requires_grad_(False)
    carried_over(pipe, adapted)
    if held and weights_digests(adapted) == before:
        raise UserError(
            f"adaptation {name_of(kind)!r} changed no weight of the {type(pipe).__name__}: what "
            "is measured would be the model as released.\nCheck its options and files."
        )
    if drawing == _drawing(adapted, given.sampler):
        raise UserError(
            f"adaptation {name_of(kind)!r} draws from the {type(pipe).__name__} as the run does, "
            f"with {type(pipe.scheduler).__name__} and {given.sampler.steps} steps: what is "
            "measured would be the model as released.\nGive it other options."
        )
    return adapted


def _drawing(pipe: DiffusionPipeline, sampler: Sampler) -> tuple[object, ...]:
    scheduler = pipe.scheduler
    return type(pipe), type(scheduler), dict(scheduler.config), sampler


def weights_digests(pipe: DiffusionPipeline) -> dict[str, str]:
    """Digest of each network's weights as they are computed with, quantised ones dequantised."""
    return {name: _digest(network) for name, network in networks(pipe).items()}


def _digest(network: nn.Module) -> str:
    total = hashlib.sha256()
    for name, tensor in sorted(named_weights(network).items()):
        plain = tensor.detach() if type(tensor) in _PLAIN else tensor.detach().dequantize()
        data = plain.cpu().contiguous()
        total.update(f"{name}|{data.dtype}|{tuple(data.shape)}|".encode())
        total.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
