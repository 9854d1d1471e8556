"""Fewer steps, another scheduler, other guidance: settings alone, no weight is another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field

from spqr_checks.adaptations.kind import AdaptationKind, Given, Surroundings
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class FewStep(AdaptationKind):
    """Draws the released weights otherwise.

    Attributes:
        steps: of sampling; half of the run's if not given.
        guidance: the run's if not given.
        scheduler: class of diffusers, such as ``DDIMScheduler``, with the pipeline's own
            configuration; the pipeline's own if empty.
    """

    changes: ClassVar[Literal["weights", "drawing"]] = "drawing"

    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance: Annotated[float, Field(ge=0)] | None = None
    scheduler: Annotated[str, Field(pattern=r"^(\w+Scheduler)?$")] = ""

    def within(self, run: Surroundings) -> Self:
        steps = max(1, run.sampler.steps // 2) if self.steps is None else self.steps
        filled = self.model_copy(update={"steps": steps})
        same = _effective(filled.sampler(run.sampler)) == _effective(run.sampler)
        if same and self.scheduler in ("", run.scheduler):
            by = f", by the base's {self.scheduler}," if self.scheduler else ","
            raise UserError(
                f"adaptation 'few-step' draws with {steps} steps as the run does{by} which is no "
                "change: give other steps, guidance or scheduler"
            )
        return filled

    def sampler(self, sampler: Sampler) -> Sampler:
        given = {"steps": self.steps, "guidance": self.guidance}
        return sampler.model_copy(update={k: v for k, v in given.items() if v is not None})

    def misfits(self, parts: Mapping[str, str]) -> Sequence[str]:
        import diffusers

        if self.scheduler and not hasattr(diffusers, self.scheduler):
            return [
                f"adaptation 'few-step': diffusers {diffusers.__version__} has no "
                f"{self.scheduler}; for example DDIMScheduler, EulerDiscreteScheduler"
            ]
        return []

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        if self.scheduler:
            use_scheduler(pipe, self.scheduler)
        return pipe


def _effective(sampler: Sampler) -> Sampler:
    """With one number for all guidances that are none."""
    return sampler.model_copy(update={"guidance": max(1.0, sampler.guidance)})


def use_scheduler(pipe: DiffusionPipeline, name: str) -> None:
    """Gives a pipeline another scheduler with its own one's configuration.

    Raises:
        UserError: for one that does not belong to the pipeline's kind of model.
    """
    import diffusers

    own = pipe.scheduler
    known = {type(own).__name__, *(found.__name__ for found in getattr(own, "compatibles", []))}
    if name not in known:
        raise UserError(
            f"scheduler {name} cannot take the place of the {type(own).__name__} of this "
            f"{type(pipe).__name__}; there are: {', '.join(sorted(known))}"
        )
    pipe.scheduler = getattr(diffusers, name).from_config(own.config)


ADAPTATION = FewStep
