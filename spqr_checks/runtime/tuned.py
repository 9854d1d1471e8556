"""A fine-tuned state as a pipeline. Heavy inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Load = Callable[[], "DiffusionPipeline"]


def load_tuned(origin: Load, tuning: Path, trained_on: Load | None = None) -> DiffusionPipeline:
    """The origin with a fine-tuning.

    Args:
        origin: loads what the fine-tuning is put on.
        tuning: its entry.
        trained_on: loads the pipeline it was trained on, if that is another. The result is then
            W0 + ΔW_safe + ΔW_ft: the fine-tuning is merged into weights that are already safe.

    Raises:
        UserError: for an entry that does not fit the pipeline.
    """
    from spqr_checks.finetuning import trainer
    from spqr_checks.models import weights

    reference = None if trained_on is None else weights.copy_state(trained_on())
    pipe = origin()
    if reference is None:
        trainer.apply_tuning(pipe, tuning)
    else:
        trainer.apply_tuning_delta(pipe, tuning, reference)
    return pipe
