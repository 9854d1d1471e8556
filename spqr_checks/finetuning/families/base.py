"""What every family of denoisers answers to the trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from spqr_checks.errors import UserError
from spqr_checks.finetuning.objectives import Objective
from spqr_checks.generation.conditions import Encoded
from spqr_checks.models import adapters
from spqr_checks.models.pipelines import quiet

BATCH = 8
"""Images or captions that are encoded together; fixed, since it can change the last bits."""

CROSS_ATTENTION = r"\battn2\.(to_k|to_v|to_out)\."
"""Keys, values and outputs of a cross-attention."""

JOINT_TARGETS = (*adapters.TARGETS, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Queries, keys, values and outputs of both streams of a joint attention (MMDiT).

Text and image are two streams of tokens with projections of their own (``add_…`` for text), whose
queries, keys and values meet in one attention (Esser et al. 2024, section 4).
"""

JOINT_ATTENTION = r"\battn\.(add_k_proj|add_v_proj|to_add_out)\."
"""Keys, values and outputs of the text stream.

There is no cross-attention here, so that which weights correspond to a UNet's is our
reconstruction: image tokens read the text through its keys and values, as through ``to_k`` and
``to_v`` of a cross-attention, and ``to_add_out`` is what the text takes from the attention, the
counterpart of ``to_out``. Queries stay frozen in both. Blocks with one stream (Flux) project text
and image by the same weights and are left alone.
"""


class Conditions(Protocol):
    """What denoisers of one family are told beside noisy latents and time.

    Held in main memory, one row for each distinct caption; row 0 is the empty caption.
    """

    def predict(self, denoiser: nn.Module, noisy: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """Calls the denoiser as the family's pipelines do.

        Args:
            noisy: latents, shape (n, c, h, w); in their dtype and on their device the rest is
                handed over.
            t: times as the pipeline's scheduler has them, shape (n,).
            rows: of the captions, shape (n,), on the CPU.

        Returns:
            The prediction, shape of ``noisy``.
        """
        ...


@dataclass(frozen=True)
class TransformerConditions(Encoded, ABC):
    """`Conditions` of a transformer, whose every tensor has a row for each caption."""

    @abstractmethod
    def predict(self, denoiser: nn.Module, noisy: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """As `Conditions.predict`."""

    @abstractmethod
    def inputs(self, unguided: Any) -> dict[str, Any]:
        """Arguments of the pipeline for drawing these captions.

        Args:
            unguided: conditions of the same family, as many: what guidance takes for no prompt.
        """


@dataclass(frozen=True)
class Parts:
    """Parts of a transformer by their relation to the text.

    Attributes:
        readers: regular expression for the linear layers that are given the text and nothing else.
        attention: for the weights of the attention in which image and text meet.
        keys: for the weights of the text's own keys and values there.
        ends: beginnings of the names of what embeds time and makes the output.
        attention_targets, keys_targets, other_targets: endings of layers' names that a LoRA is put
            on for these two, and for the rest.
        self_targets: for the image's attention to itself; with joint attention the queries, keys,
            values and outputs of the image's own stream, and of blocks with one stream.
    """

    readers: str
    attention: str
    keys: str
    ends: tuple[str, ...]
    attention_targets: tuple[str, ...]
    keys_targets: tuple[str, ...]
    other_targets: tuple[str, ...]
    self_targets: tuple[str, ...]


JOINT_PARTS = Parts(
    # other layers of the text stream see the image too, and time
    readers=r"^(context_embedder|time_text_embed\.text_embedder\.linear_1)$",
    attention=r"\battn\.(?!norm)",
    keys=r"\battn\.(add_k_proj|add_v_proj)\.",
    ends=("norm_out.", "proj_out.", "time_text_embed."),
    attention_targets=JOINT_TARGETS,
    keys_targets=("add_k_proj", "add_v_proj"),
    other_targets=("net.0.proj", "net.2"),
    self_targets=adapters.TARGETS,
)


class Family(Protocol):
    """A kind of denoiser, whichever pipeline it is part of."""

    @property
    def targets(self) -> Sequence[str]:
        """Endings of the names of all attention layers that a LoRA is put on."""
        ...

    @property
    def cross_attention(self) -> str:
        """Regular expression for the weights through which text enters the image."""
        ...

    def knows(self, denoiser: object) -> bool:
        """Whether the denoiser is of this family."""
        ...

    def objective(self, pipe: DiffusionPipeline) -> Objective:
        """The pipeline's ordinary loss.

        Raises UserError if the pipeline's scheduler does not fit, or it draws from more than text.
        """
        ...

    def own_size(self, pipe: DiffusionPipeline) -> tuple[int, int]:
        """Height and width in pixels that the pipeline draws unless told otherwise."""
        ...

    def grid(self, pipe: DiffusionPipeline) -> int:
        """Of how many pixels height and width must be a multiple."""
        ...

    def encode(
        self, pipe: DiffusionPipeline, captions: Sequence[str], size: tuple[int, int]
    ) -> Conditions:
        """Encodes distinct captions; rows are theirs in order, after the empty one.

        Raises ArithmeticError for embeddings that are not finite.
        """
        ...


class TransformerFamily(Family, Protocol):
    """A family with a transformer that alignment can change as well."""

    @property
    def parts(self) -> Parts:
        """Which of its layers belong to the text."""
        ...

    def encode(
        self, pipe: DiffusionPipeline, captions: Sequence[str], size: tuple[int, int]
    ) -> TransformerConditions:
        """As `Family.encode`."""
        ...

    def last_words(self, pipe: DiffusionPipeline, captions: Sequence[str]) -> Tensor:
        """Positions of each caption's last word among the tokens, shape (captions, encoders)."""
        ...

    def seen(self, x: Tensor, t: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Latents and times as the pipeline hands them to the denoiser, in the trainer's shape.

        ``size``: height and width of the latents.

        Returns:
            Latents, shape (n, c, h, w), and times as the pipeline's scheduler has them.
        """
        ...

    def given(self, x: Tensor) -> Tensor:
        """Latents, shape (n, c, h, w), as the pipeline takes them to draw on from."""
        ...


def last_words(tokenizer: Any, captions: Sequence[str], tokens: int) -> Tensor:
    """Position of the token before the end token; 0 for the empty caption. Shape (captions,)."""
    mask: Tensor = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokens,
        truncation=True,
        return_tensors="pt",
    ).attention_mask
    return (mask.sum(1) - 2).clamp(min=0)


class OnTransformer:
    """What families share whose transformer's configuration names its size and its patches."""

    def own_size(self, pipe: DiffusionPipeline) -> tuple[int, int]:
        """A square, as the transformer's configuration says."""
        size = int(pipe.transformer.config.sample_size) * int(pipe.vae_scale_factor)
        return size, size

    def grid(self, pipe: DiffusionPipeline) -> int:
        """One patch."""
        return int(pipe.vae_scale_factor) * int(pipe.transformer.config.patch_size)

    def seen(self, x: Tensor, t: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """As they are."""
        del size
        return x, t

    def given(self, x: Tensor) -> Tensor:
        """As they are."""
        return x


Embed = Callable[[list[str]], Sequence[Tensor]]


@torch.no_grad()
def embedded(captions: Sequence[str], embed: Embed, empty: Embed | None = None) -> list[Tensor]:
    """Rows of each of the tensors that ``embed`` returns: the empty caption's, then the captions'.

    Args:
        embed: encodes captions as the pipeline itself would condition on them.
        empty: encodes the empty caption, where the pipeline treats it otherwise.

    Raises:
        ArithmeticError: for embeddings that are not finite.
    """
    with quiet():
        parts = [(empty or embed)([""])]
        for first in range(0, len(captions), BATCH):
            parts.append(embed(list(captions[first : first + BATCH])))
    columns = [
        torch.cat([tensor.cpu() for tensor in column]) for column in zip(*parts, strict=True)
    ]
    if not all(bool(torch.isfinite(column).all()) for column in columns):
        raise ArithmeticError("the caption embeddings of the fine-tuning data are not finite")
    return columns


def refuse_channels(pipe: DiffusionPipeline, takes: int, latents: int, what: str) -> None:
    """UserError unless the denoiser sees latents and nothing else (inpainting, controls)."""
    if takes != latents:
        raise UserError(
            f"{type(pipe).__name__} cannot be fine-tuned: its {what} takes {takes} channels, its "
            f"latents have {latents}; give a text-to-image pipeline"
        )
