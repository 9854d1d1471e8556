"""What every guidance is, and guidance on a pipeline: put to work only where images are drawn.

The networks are not touched. Whoever calls the UNet outside of ``guiding`` (a training does)
calls the bare one.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from spqr_checks.choices import Sampler

_NAME = "_spqr_guidance"


class Steering(Protocol):
    """A guidance made ready for one pipeline: its prompts are encoded, nothing is hooked yet."""

    def around(self, pipe: DiffusionPipeline) -> AbstractContextManager[None]:
        """Steers one call of the pipeline, from its first step to its last."""
        ...


class Guidance(BaseModel, ABC):
    """All parameters and prompts of a guidance; weights, if any, lie in files beside it.

    Fields have no defaults: a file that lacks one is refused, not filled up.

    Attributes:
        kind: the name under which the registry knows the class.
        reads_tokens: whether it needs the prompt as text, beside its embedding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str
    reads_tokens: ClassVar[bool] = False

    @property
    @abstractmethod
    def acts(self) -> bool:
        """Whether its strength is other than zero: whether it can change an image at all."""

    @abstractmethod
    def check(self, pipe: DiffusionPipeline, sampler: Sampler) -> None:
        """Raises UserError for a sampler or scheduler under which it cannot work as it should."""

    @abstractmethod
    def prepare(self, pipe: DiffusionPipeline) -> Steering:
        """Encodes its prompts with the pipeline's own text encoders.

        Raises UserError for a pipeline that it cannot steer, or prompts that it cannot use.
        """

    def write_files(self, folder: Path) -> None:
        """Writes what a guidance needs beside its parameters; most need nothing."""
        del folder

    def with_files(self, folder: Path) -> Guidance:
        """The guidance, knowing the folder of what `write_files` left; read when it is needed."""
        del folder
        return self

    def to_json(self) -> str:
        """Indented JSON text with sorted keys; ``registry.from_json`` reads it."""
        record = self.model_dump(mode="json")
        return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


class _Carried(NamedTuple):
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


def detach_guidance(pipe: DiffusionPipeline) -> None:
    """Takes the carried guidance off, if there is one."""
    if guidance_of(pipe) is not None:
        delattr(pipe, _NAME)


def guidance_of(pipe: Any) -> Guidance | None:
    """The guidance that a pipeline carries, if any."""
    carried: _Carried | None = getattr(pipe, _NAME, None)
    return None if carried is None else carried.guidance


def carried_over(pipe: Any, other: Any) -> None:
    """Has another pipeline of the same networks carry what the first one carries."""
    carried: _Carried | None = getattr(pipe, _NAME, None)
    if carried is not None and getattr(other, _NAME, None) is None:
        setattr(other, _NAME, _Carried(carried.guidance, carried.guidance.prepare(other)))


@contextmanager
def guiding(pipe: Any, sampler: Sampler) -> Iterator[None]:
    """Puts the carried guidance to work for one call of the pipeline; nothing without one.

    Raises UserError for a sampler or scheduler under which the guidance cannot work.
    """
    carried: _Carried | None = getattr(pipe, _NAME, None)
    if carried is None:
        yield
        return
    carried.guidance.check(pipe, sampler)
    with carried.steering.around(pipe):
        yield
