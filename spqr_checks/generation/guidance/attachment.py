"""Guidance on a pipeline: carried along, and put to work only where images are drawn.

The networks are not touched. Whoever calls the UNet outside of ``guiding`` (a training does)
calls the bare one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from spqr_checks.choices import Sampler
    from spqr_checks.generation.guidance.base import Guidance, Steering

_NAME = "_spqr_guidance"


@dataclass(frozen=True)
class _Carried:
    guidance: Guidance
    steering: Steering


def attach_guidance(pipe: DiffusionPipeline, guidance: Guidance) -> None:
    """Has the pipeline carry a guidance. Its prompts are encoded now, as the encoders are now.

    Raises:
        UserError: for a pipeline that it cannot steer, or prompts that it cannot use.
        ValueError: if the pipeline carries one already.
    """
    if guidance_of(pipe) is not None:
        raise ValueError("the pipeline carries a guidance already; load it again for another")
    setattr(pipe, _NAME, _Carried(guidance, guidance.prepare(pipe)))


def guidance_of(pipe: Any) -> Guidance | None:
    """The guidance that a pipeline carries, if any."""
    carried: _Carried | None = getattr(pipe, _NAME, None)
    return None if carried is None else carried.guidance


@contextmanager
def guiding(pipe: Any, sampler: Sampler) -> Iterator[None]:
    """Puts the carried guidance to work for one call of the pipeline; nothing without one.

    Raises:
        UserError: for a sampler or scheduler under which the guidance cannot work.
    """
    carried: _Carried | None = getattr(pipe, _NAME, None)
    if carried is None:
        yield
        return
    carried.guidance.check(pipe, sampler)
    with carried.steering.around(pipe):
        yield
