"""What every guidance is: its parameters, and how to make of them what steers a pipeline."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from spqr_checks.choices import Sampler


class Steering(Protocol):
    """A guidance made ready for one pipeline: its prompts are encoded, nothing is hooked yet."""

    def around(self, pipe: DiffusionPipeline) -> AbstractContextManager[None]:
        """Steers one call of the pipeline, from its first step to its last."""
        ...


class Guidance(BaseModel, ABC):
    """All parameters and prompts of a guidance; no weights, no tensors.

    Fields have no defaults: a file that lacks one is refused, not filled up.

    Attributes:
        kind: the name under which the registry knows the class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str

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

        Raises:
            UserError: for a pipeline that it cannot steer, or prompts that it cannot use.
        """

    def to_json(self) -> str:
        """Indented JSON text with sorted keys; ``registry.from_json`` reads it."""
        record = self.model_dump(mode="json")
        return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
