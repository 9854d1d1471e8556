"""Which parameters of a UNet a method trains: weights by name, or an adapter's."""

from __future__ import annotations

from torch import nn

from spqr_checks.alignment.training.erasing_options import ErasingOptions, Trains
from spqr_checks.models import adapters

ADAPTER = "alignment"
"""Name of the adapter that is trained."""

_LORA_TARGETS: dict[Trains, tuple[str, ...]] = {
    "x": tuple(f"attn2.{name}" for name in adapters.TARGETS),
    "x-strict": ("attn2.to_k", "attn2.to_v"),
    "u": (*(f"attn1.{name}" for name in adapters.TARGETS), "ff.net.0.proj", "ff.net.2"),
    "all": (*adapters.TARGETS, "ff.net.0.proj", "ff.net.2"),
}


def is_trained(name: str, trains: Trains) -> bool:
    """Whether a UNet parameter of this name belongs to what the variant trains."""
    match trains:
        case "x":
            return "attn2." in name
        case "x-strict":
            return "attn2.to_k." in name or "attn2.to_v." in name
        case "u":
            return "attn2." not in name
        case "all":
            return True


def trainable(student: nn.Module, options: ErasingOptions, seed: int) -> list[nn.Parameter]:
    """Freezes the UNet but for what the variant trains, or adds the adapter that is trained."""
    student.requires_grad_(False)
    if options.rank:
        targets = _LORA_TARGETS[options.trains]
        alpha = options.rank if options.alpha is None else options.alpha
        return list(adapters.add_lora(student, options.rank, alpha, targets, seed, name=ADAPTER))
    chosen = [p for name, p in student.named_parameters() if is_trained(name, options.trains)]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen
