"""Defended fine-tuning: the user's LoRA is trained without the alignment, and put on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from spqr_checks.adaptations.kind import AdaptationKind, FineTuned, Given, Surroundings
from spqr_checks.adaptations.merged import first_fine_tuning
from spqr_checks.errors import UserError
from spqr_checks.matrix import Tuning

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class LoraDetached(AdaptationKind):
    """W = W_candidate + ΔW_LoRA, the LoRA trained on the base (as Modular LoRA, arXiv 2412.00357).

    Whatever the candidate is: a platform trains on the original and serves the aligned weights.

    Attributes:
        profile, dataset, seed: of the fine-tuning; the run's first if not given.
    """

    profile: str = ""
    dataset: str = ""
    seed: int | None = None
    data: str = ""

    places: ClassVar[frozenset[str]] = frozenset({"data"})

    def within(self, run: Surroundings) -> Self:
        filled = first_fine_tuning(self, "lora-detached", run)
        if run.known[filled["profile"]].trains != "lora":
            raise UserError(
                f"adaptation 'lora-detached': profile {filled['profile']!r} trains no LoRA; name "
                "one that does"
            )
        return self.model_copy(update=filled | {"data": run.datasets[filled["dataset"]]})

    @property
    def gains(self) -> bool:
        return True

    @property
    def images(self) -> str:
        return self.data

    @property
    def fine_tuning(self) -> FineTuned:
        assert self.seed is not None
        return FineTuned("base", Tuning(self.profile, self.dataset, self.seed))

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        from spqr_checks.finetuning import trainer
        from spqr_checks.models import adapters

        assert given.entry is not None
        trainer.apply_tuning(pipe, given.entry)
        adapters.merge(pipe)
        return pipe


ADAPTATION = LoraDetached
