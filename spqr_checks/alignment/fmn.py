"""Forget-Me-Not: attention to the concept's words is trained away.

Zhang et al., "Forget-Me-Not: Learning to Forget in Text-to-Image Diffusion Models" (CVPR workshops
2024, arXiv 2303.17591; code: SHI-Labs/Forget-Me-Not). First, new tokens may be learned that stand
for the concept (textual inversion); then the loss is the norm of all cross-attention probabilities
at the concept's tokens, over all layers and heads together, at noised images of the concept.
Defaults are those of the authors' configuration, which trains the whole UNet.

Ours: a concept is a category of harmful prompts. Its tokens are those in which a prompt differs
from its anchor, images are drawn by the base, learned tokens start from random words, and there is
the preservation loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spqr_checks.alignment.method import Method, unet_of
from spqr_checks.alignment.request import AlignmentRequest, Report, no_report
from spqr_checks.alignment.training.distillation import StudentTraining
from spqr_checks.alignment.training.options import (
    Count,
    ErasingOptions,
    Positive,
    TrainingOptions,
    Trains,
    Weight,
    Whole,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers import DiffusionPipeline
    from torch import Tensor

    from spqr_checks.generation.conditions import Conditions

_POOL = 1


class FmnOptions(ErasingOptions):
    """Options of Forget-Me-Not, beside those that it shares with ESD.

    Attributes:
        tokens: tokens that are learned for each category of harmful prompts; 0 learns none, and
            takes the words of the prompts.
        template: the prompt around learned tokens; for styles the authors take another.
        inversion_steps, inversion_batch, inversion_rate, inversion_decay: of their training.
        ends: whether attention to end tokens counts.
        weight_decay, clip: of AdamW; ``clip`` is the largest norm of all gradients together.
    """

    trains: Trains = "all"
    tokens: Whole = 4
    template: str = "a photo of {}"
    inversion_steps: Count = 500
    inversion_batch: Count = 1
    inversion_rate: Positive = 1e-3
    inversion_decay: Weight = 0.1
    ends: bool = True
    start_guidance: Weight = 7.5
    steps: Count = 35
    learning_rate: Positive = 2e-6
    weight_decay: Weight = 1e-2
    clip: Annotated[float, Field(gt=0)] | None = 1.0


def attention_norm(maps: Sequence[Tensor], tokens: Tensor) -> Tensor:
    """One norm over the probabilities of all layers and heads at the concept's tokens.

    Args:
        maps: shape (rows, heads, pixels, tokens) each.
        tokens: which count, shape (rows, tokens).
    """
    import torch

    from spqr_checks.alignment.training.attention import inside

    attended: Tensor = torch.cat([inside(one, tokens, None).flatten() for one in maps])
    norm: Tensor = attended.norm()
    return norm


class Forgetting(StudentTraining[FmnOptions]):
    """One training by Forget-Me-Not."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: FmnOptions
    ) -> None:
        from spqr_checks.alignment.training.attention import concept_mask

        super().__init__(pipe, request, options, "fmn", asks_frozen=False)
        self.pool = self.draw_pool(request.harmful, _POOL, fill=True)
        self.keep = self.prepare_keep()
        self.prompts: Conditions = self.harmful
        self.masks = concept_mask(pipe, request.harmful, request.anchors)
        if not options.ends:
            from spqr_checks.alignment.training.attention import token_ids

            self.masks &= token_ids(pipe, request.harmful) != pipe.tokenizer.eos_token_id

    def started(self) -> None:
        """Learns the tokens of each category, if there are to be any."""
        import torch

        from spqr_checks.alignment.training.inversion import Slots, first_rows, invert
        from spqr_checks.alignment.training.latents import Pool
        from spqr_checks.generation.conditions import Conditions, joined

        options, pipe = self.options, self.pipe
        if not options.tokens:
            return
        slots = Slots.of(pipe, options.template, options.tokens)
        steps = TrainingOptions(steps=options.inversion_steps, batch=options.inversion_batch)
        learned: dict[str, Conditions] = {}
        for category in dict.fromkeys(self.request.categories):
            its = [self.request.categories[i] == category for i in self.pool.shows.tolist()]
            some = torch.tensor(its)
            if not some.any():
                raise ValueError(f"no image of category {category!r} was drawn")
            pool = Pool(self.pool.latents[some.to(self.device)], self.pool.shows[some])
            vectors = invert(
                pipe,
                slots,
                first_rows(pipe, [], options.tokens, self.generator),
                pool,
                steps,
                predictor=self.predictor,
                noiser=self.noiser,
                learning_rate=options.inversion_rate,
                weight_decay=options.inversion_decay,
                generator=self.generator,
                report=no_report,
            )
            with torch.no_grad():
                learned[category] = Conditions(slots.states(pipe, vectors))
        self.prompts = joined([learned[category] for category in self.request.categories])
        mask = slots.mask(pipe)
        if not options.ends:
            mask &= slots.ids[None] != pipe.tokenizer.eos_token_id
        self.masks = mask.expand(len(self.prompts), -1)

    def noisy(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt numbers, x_t and t of one batch."""
        index, z = self.pool.pick(self.options.batch, self.generator)
        return (index, *self.noiser(z, self.generator))

    def loss(self) -> Tensor:
        """Loss of one fresh batch."""
        from spqr_checks.alignment.training.attention import attention_maps

        index, x, t = self.noisy()
        with attention_maps(self.student) as maps:
            self.predictor(self.student, x, t, self.prompts[index.to(self.device)])
        attended = attention_norm(maps, self.masks[index].to(self.device))
        return attended + self.preserving()


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: FmnOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.training.inversion import refuse_several_encoders

    unet_of(pipe, "fmn")
    if options.tokens:
        refuse_several_encoders(pipe, "fmn")
    training = Forgetting(pipe, request, options)
    training.run(out, report, weight_decay=options.weight_decay, clip=options.clip)


METHOD = Method("fmn", FmnOptions, _align)
