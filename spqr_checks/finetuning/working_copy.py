"""A copy of a pipeline's denoiser, to be trained in its place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spqr_checks.models.weights import denoiser_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin


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
