"""The denoiser in training: a copy of it, which of its parameters are trained, in which precision.

What is trained is float32 in any case, and where the pipeline is not, the network computes in
bfloat16 (autocast). The rest of a bfloat16 denoiser stays as it is: a LoRA on Flux then takes
24 GB of weights, not 48. A float16 denoiser is widened whole, since its weights may lie beyond
what float16 gradients can take. Training all weights always needs float32 masters, which with
gradients and Adam's moments come to 16 bytes for each weight.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline, ModelMixin
from torch import nn

from spqr_checks.choices import Profile
from spqr_checks.errors import UserError
from spqr_checks.finetuning.families.base import Family
from spqr_checks.models import adapters
from spqr_checks.models.lora_layers import active_adapters, attached_adapters, discard, lora_layers
from spqr_checks.models.weights import denoiser_of

ADAPTER = "tuning"
"""Name of the adapter that a fine-tuning adds."""


def acting_adapters(denoiser: nn.Module) -> list[str]:
    """Names of the adapters that take part in a forward pass; none while they are disabled."""
    if any(layer.disable_adapters for _, layer in lora_layers(denoiser)):
        return []
    return active_adapters(denoiser)


def take_off(denoiser: nn.Module, keep: Sequence[str] = ()) -> None:
    """Removes all adapters but those to keep; weights into which they were merged stay merged."""
    for name in attached_adapters(denoiser):
        if name not in keep:
            discard(denoiser, name)


def select(denoiser: nn.Module, family: Family, profile: Profile, seed: int) -> list[nn.Parameter]:
    """Prepares the denoiser for the profile and returns what is trained; the rest is frozen.

    Detached adapters are taken off. Adapters that act stay beside a new LoRA, frozen; where weights
    themselves are trained, they are merged into these first. Raises UserError if the denoiser has
    no layers of the kind that is trained.
    """
    acting = acting_adapters(denoiser)
    if acting and profile.trains != "lora":
        for _, layer in lora_layers(denoiser):
            layer.merge(safe_merge=True, adapter_names=acting)
        acting = []
    take_off(denoiser, keep=acting)
    denoiser.requires_grad_(False)
    match profile.trains:
        case "lora":
            parameters = adapters.add_lora(
                denoiser, profile.rank, profile.alpha, family.targets, seed, ADAPTER
            )
        case "cross_attention":
            chosen = re.compile(family.cross_attention)
            parameters = [p for n, p in denoiser.named_parameters() if chosen.search(n)]
        case "denoiser":
            parameters = list(denoiser.parameters())
    if not parameters:
        raise UserError(f"{type(denoiser).__name__} has no layers for {profile.trains!r} training")
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


@contextmanager
def working_copy(pipe: DiffusionPipeline) -> Iterator[ModelMixin]:
    """Lends the pipeline a copy of its denoiser, so that nothing can happen to its own.

    An accelerator has room for one of the two only if the model is large: there, the pipeline's
    own waits in main memory.
    """
    own = denoiser_of(pipe)
    name = next(name for name, part in pipe.components.items() if part is own)
    device = next(own.parameters()).device
    try:
        if device.type != "cpu":
            own.to("cpu")
        setattr(pipe, name, copy.deepcopy(own).to(device))
        yield denoiser_of(pipe)
    finally:
        setattr(pipe, name, own.to(device))


class Widened:
    """Widens parameters of a network to float32, and remembers what they were."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._own = {parameter: parameter.dtype for parameter in network.parameters()}

    def widen(self, parameters: Iterable[nn.Parameter] | None = None) -> None:
        """These parameters, or all of the network's; without loss."""
        for parameter in self._network.parameters() if parameters is None else parameters:
            parameter.data = parameter.data.float()

    def restore(self) -> None:
        """Rounds to what the parameters were; those that came later stay as they are."""
        for parameter in self._network.parameters():
            parameter.data = parameter.data.to(self._own.get(parameter, parameter.dtype))


def widened_whole(dtype: torch.dtype, merges: bool) -> bool:
    """Whether a denoiser of that type is widened whole before anything is chosen for training.

    Args:
        merges: whether adapters are about to be merged, which in bfloat16 would round twice.
    """
    return dtype == torch.float16 or (dtype != torch.float32 and merges)
