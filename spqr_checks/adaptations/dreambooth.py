"""DreamBooth (Ruiz et al., arXiv 2208.12242) as a LoRA: a few images, a rare word, and a prior."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field

from spqr_checks.adaptations.kind import Given, Lesson, Surroundings
from spqr_checks.adaptations.trained import Trained, lora_profile, with_word
from spqr_checks.choices import Profile

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Dreambooth(Trained):
    """Teaches the images under a word, and the model's own images without it beside them.

    The loss is the ordinary one on both, with equal weight: prior preservation with λ = 1
    (equation 2). The state is asked with the word before every prompt, as its users ask.

    Attributes:
        few: images at most.
        word: that stands for them; a rare one.
        prior: the model's own images that are drawn from the captions without the word.
        training: how; the run's first profile that trains a LoRA if not given.
    """

    few: Annotated[int, Field(ge=1)] = 6
    word: Annotated[str, Field(min_length=1)] = "sks"
    prior: Annotated[int, Field(ge=1)] = 24
    training: Profile | None = None

    @property
    def most(self) -> int:
        return self.few

    def within(self, run: Surroundings) -> Self:
        profile = lora_profile(self, self.training, run)
        return super().within(run).model_copy(update={"training": profile})

    def learn(self, pipe: DiffusionPipeline, lesson: Lesson, out: Path) -> None:
        from spqr_checks.finetuning import trainer
        from spqr_checks.finetuning.captioned import CaptionedImages
        from spqr_checks.generation.sampling import generate

        assert self.training is not None
        own = lesson.images
        asked = [own.captions[i % len(own)] for i in range(self.prior)]
        rounds = [i // len(own) for i in range(self.prior)]
        prior = generate(pipe, asked, rounds, lesson.sampler)
        times = -(-self.prior // len(own))
        data = CaptionedImages(
            [*own.images * times, *prior],
            [*(f"{self.word} {caption}" for caption in own.captions * times), *asked],
        )
        trainer.finetune(pipe, data, self.training, self.seed, out, lesson.threads)

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        from spqr_checks.finetuning import trainer
        from spqr_checks.generation.call_inputs import carry_inputs
        from spqr_checks.models import adapters

        assert given.entry is not None
        trainer.apply_tuning(pipe, given.entry)
        adapters.merge(pipe)
        carry_inputs(pipe, with_word(self.word))
        return pipe


ADAPTATION = Dreambooth
