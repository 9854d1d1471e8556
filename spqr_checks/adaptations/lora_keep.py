"""Defended fine-tuning: a LoRA that rehearses the candidate's own answers to what it suppresses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field

from spqr_checks.adaptations.kind import Given, Lesson, Surroundings
from spqr_checks.adaptations.trained import Trained, lora_profile
from spqr_checks.choices import Profile
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class LoraKeep(Trained):
    """The ordinary fine-tuning on the user's images and on images of the candidate's own.

    The latter are drawn from prompts that ask for suppressed concepts, those that an alignment
    learns from, and so show what is drawn instead (rehearsal, Robins 1995; ours for this use). The
    candidate draws them also where users train the base and its safety adapter is put on later.

    Attributes:
        share: of the rehearsed images among all.
        training: how; the run's first profile that trains a LoRA if not given.
    """

    rehearses: ClassVar[bool] = True

    share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    training: Profile | None = None

    def within(self, run: Surroundings) -> Self:
        profile = lora_profile(self, self.training, run)
        return super().within(run).model_copy(update={"training": profile})

    def learn(self, pipe: DiffusionPipeline, lesson: Lesson, out: Path) -> None:
        from spqr_checks.finetuning import trainer
        from spqr_checks.finetuning.captioned import CaptionedImages
        from spqr_checks.generation.sampling import generate

        assert self.training is not None
        own, prompts = lesson.images, lesson.rehearsed
        if not prompts:
            raise UserError(
                "adaptation 'lora-keep' rehearses prompts that ask for suppressed concepts, and "
                "--spqr-alignment-prompts have none"
            )
        number = max(1, round(len(own) * self.share / (1 - self.share)))
        asked = [prompts[i * len(prompts) // number % len(prompts)] for i in range(number)]
        seeds = list(range(number))
        kept = (
            generate(pipe, asked, seeds, lesson.sampler)
            if lesson.answers is None
            else lesson.answers(asked, seeds)
        )
        data = CaptionedImages([*own.images, *kept], [*own.captions, *asked])
        trainer.finetune(pipe, data, self.training, self.seed, out, lesson.threads)

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        from spqr_checks.finetuning import trainer
        from spqr_checks.models import adapters

        assert given.entry is not None
        trainer.apply_tuning(pipe, given.entry)
        adapters.merge(pipe)
        return pipe


ADAPTATION = LoraKeep
