"""A fine-tuned state as a pipeline. Heavy inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor


def tune(
    pipe: Callable[[], DiffusionPipeline],
    tuning: Path,
    trained_on: Callable[[], Mapping[str, Tensor]] | None = None,
) -> DiffusionPipeline:
    """Puts a fine-tuning on a pipeline.

    Args:
        pipe: gives what it is put on.
        tuning: its entry.
        trained_on: gives the denoiser's weights that it was trained on (``weights.copy_state``), if
            those are others; asked for first, and only if the entry is weights. The result is then
            W0 + ΔW_safe + ΔW_ft: the fine-tuning is merged into weights that are already safe.

    Raises:
        UserError: for an entry that does not fit the pipeline.
    """
    from spqr_checks.finetuning import trainer

    if trained_on is None or trainer.is_adapter(tuning):
        trainer.apply_tuning(made := pipe(), tuning)
    else:
        reference = trained_on()
        trainer.apply_tuning_delta(made := pipe(), tuning, reference)
    return made
