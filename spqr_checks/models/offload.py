"""Where a pipeline computes, and whether its weights wait in main memory meanwhile. Light."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def place(pipe: DiffusionPipeline, device: str, offload: str = "none") -> None:
    """Puts a pipeline on a device, whole or piece by piece.

    Args:
        offload: ``none``; ``model`` (one network at a time is on the device, `accelerate`'s model
            offload); ``sequential`` (one layer at a time: least memory, slow).

    Raises:
        UserError: for a device that is not there, offload on the CPU, and pipelines that cannot
            be offloaded.
    """
    import torch

    from spqr_checks.models.pipelines import first_line, quiet

    if offload != "none" and torch.device(device).type == "cpu":
        raise UserError(
            f"offload = {offload!r} moves weights between main memory and an accelerator, but the "
            "device is the CPU.\nSet --spqr-device, or leave offload out."
        )
    try:
        with quiet():
            if offload == "model":
                pipe.enable_model_cpu_offload(device=device)
            elif offload == "sequential":
                pipe.enable_sequential_cpu_offload(device=device)
            else:
                pipe.to(device)
    except (RuntimeError, AssertionError, ValueError, ImportError) as error:
        raise UserError(
            f"the pipeline cannot be put on {device!r}"
            f"{'' if offload == 'none' else f' with offload {offload!r}'}: {first_line(error)}"
        ) from error
