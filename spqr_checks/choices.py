"""How images are drawn and models fine-tuned: the settings that makers of artefacts are handed.

They stand apart from the other settings because their code belongs to the keys of artefacts.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Listed = TypeVar("Listed", bound=tuple[Any, ...])


def _listed(value: Any) -> Any:
    """Comma-separated text as given on a command line."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _distinct(value: Listed) -> Listed:
    if twice := [one for one in value if value.count(one) > 1]:
        raise ValueError(f"{twice[0]!r} is given twice; give it once")
    if any(isinstance(one, str) and not one.strip() for one in value):
        raise ValueError("an empty name; leave it out")
    return value


def _some(value: Listed) -> Listed:
    if not value:
        raise ValueError("names nothing; leave the setting out for all there are")
    return value


def _shard(value: Any) -> str:
    """``i/n`` with 1 ≤ i ≤ n, or nothing."""
    text = str(value).strip()
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    if text and not (found and 1 <= int(found[1]) <= int(found[2])):
        raise ValueError("a share such as 1/4, the first of four")
    return text


Names = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_distinct)]
Chosen = Annotated[Names, AfterValidator(_some)]
"""Names to narrow something down to."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What every library that draws random numbers takes."""
Numbers = Annotated[tuple[Seed, ...], BeforeValidator(_listed), AfterValidator(_distinct)]
Images = Annotated[int, Field(ge=1, le=1_000_000)]
Side = Annotated[int, Field(ge=8, le=16_384)]
"""Of an image, in pixels."""
Rate = Annotated[float, Field(ge=0, le=1)]
Shard = Annotated[str, BeforeValidator(_shard)]
"""Which of several shares: ``2/4``, or nothing."""


class Frozen(BaseModel):
    """Base of settings: frozen, unknown names are refused, and all numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Profile(Frozen):
    """One benign fine-tuning profile (SPQR, section on benign fine-tuning).

    ``steps`` overrides ``epochs``; ``curriculum`` holds cumulative bounds of consecutive blocks
    of the data, each trained in turn. ``batch`` images are computed at a time and ``accumulation``
    such batches make one step. ``resolution`` is the side of the training images in pixels; by
    default they have the size that the pipeline draws. ``gradient_checkpointing`` computes
    activations twice instead of keeping them.
    """

    trains: Literal["lora", "cross_attention", "denoiser"]
    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    epochs: Annotated[float, Field(gt=0)] = 3.0
    steps: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=1)] = 16
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    clip: Annotated[float, Field(gt=0)] = 1.0
    caption_dropout: Rate = 0.0
    warmup: Annotated[int, Field(ge=0)] = 0
    curriculum: Numbers = ()
    accumulation: Annotated[int, Field(ge=1)] = 1
    gradient_checkpointing: bool = False
    resolution: Side | None = None

    @property
    def images_per_step(self) -> int:
        """Images that decide one update of the weights."""
        return self.batch * self.accumulation


class Sampler(Frozen):
    """How images are drawn; ``batch`` is the fixed batch within one group of prompts.

    ``compile`` compiles denoiser and decoder, which pays where many images are drawn on a GPU.
    """

    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    guidance: Annotated[float, Field(ge=0)] = 7.5
    height: Side | None = None
    width: Side | None = None
    negative_prompt: str = ""
    batch: Annotated[int, Field(ge=1)] = 24
    compile: bool = False
