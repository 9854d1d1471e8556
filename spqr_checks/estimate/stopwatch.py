"""Ends a computation at a deadline, one step of the denoiser late at most."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Enough(BaseException):
    """Ends a probe from within a pipeline or a training; no error, nobody may take it for one."""


@contextmanager
def until(deadline: float, pipe: DiffusionPipeline) -> Iterator[list[float]]:
    """Lets what is done in the ``with`` block with a pipeline go on until a deadline.

    Two calls of the denoiser are always waited for, since one tells nothing about the next.
    ``Enough`` raised in the block ends it too.

    Args:
        deadline: as ``time.monotonic`` counts.
        pipe: its denoiser, or a copy of it, is called in every step.

    Yields:
        When the denoiser was called.
    """
    from spqr_checks.models.weights import denoiser_of

    calls: list[float] = []

    def called(*_: Any) -> None:
        calls.append(time.monotonic())
        if len(calls) > 2 and calls[-1] > deadline:
            raise Enough

    # a copied denoiser keeps the hook, and a function is not copied: both fill the same list
    handle = denoiser_of(pipe).register_forward_pre_hook(called)
    try:
        yield calls
    except Enough:
        pass
    finally:
        handle.remove()
