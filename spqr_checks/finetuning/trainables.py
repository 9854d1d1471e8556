"""Which parameters a profile trains, on a denoiser that may carry adapters."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from spqr_checks.choices import Profile
from spqr_checks.errors import UserError
from spqr_checks.finetuning.families.base import Family
from spqr_checks.models import adapters
from spqr_checks.models.lora_layers import active_adapters, attached_adapters, discard, lora_layers

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

    Detached adapters are taken off. Adapters that act stay beside a new LoRA, frozen; where
    weights themselves are trained, they are merged into these first.

    Raises:
        UserError: if the denoiser has no layers of the kind that is trained.
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
