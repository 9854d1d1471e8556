"""A merge of models: the average of the candidate's weights and those of a benign fine-tune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from spqr_checks.adaptations.kind import AdaptationKind, FineTuned, Given, Surroundings
from spqr_checks.errors import UserError
from spqr_checks.matrix import Tuning

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Merged(AdaptationKind):
    """W = (1 - weight) · W_candidate + weight · W_fine-tuned, of the denoiser, in float32.

    Attributes:
        weight: of the fine-tuned model; 0.5 is the average (model soups, arXiv 2203.05482).
        of: what was fine-tuned: the ``base``, as models that are shared were, so that half of what
            alignment changed goes with the average, or the ``candidate``.
        profile, dataset, seed: of the fine-tuning; the run's first if not given.
    """

    weight: Annotated[float, Field(gt=0, lt=1)] = 0.5
    of: Literal["base", "candidate"] = "base"
    profile: str = ""
    dataset: str = ""
    seed: int | None = None

    def within(self, run: Surroundings) -> Self:
        return self.model_copy(update=first_fine_tuning(self, "merged", run))

    @property
    def fine_tuning(self) -> FineTuned:
        assert self.seed is not None
        of: Literal["base", "aligned"] = "base" if self.of == "base" else "aligned"
        return FineTuned(of, Tuning(self.profile, self.dataset, self.seed))

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        import torch

        from spqr_checks.models import adapters, weights

        assert given.tuned is not None
        tuned = given.tuned()
        adapters.merge(tuned)
        other = weights.copy_state(tuned)
        own = weights.named_weights(weights.denoiser_of(pipe))
        weights.compare_shapes(
            weights.shapes(own), weights.shapes(other), "the fine-tuned model of a merge"
        )
        with torch.no_grad():
            for name, weight in own.items():
                if weight.is_floating_point():
                    its = other[name].to(weight.device).float()
                    weight.copy_(torch.lerp(weight.float(), its, self.weight))
        return pipe


def first_fine_tuning(kind: Any, name: str, run: Surroundings) -> dict[str, Any]:
    """Profile, data set and seed of an adaptation, the run's first where it names none.

    Raises:
        UserError: where there is none, or one is unknown.
    """
    named: dict[str, tuple[Any, Sequence[Any], Sequence[Any]]] = {
        "profile": (kind.profile, run.profiles, list(run.known)),
        "dataset": (kind.dataset, list(run.datasets), list(run.datasets)),
        "seed": (kind.seed, run.seeds, ()),
    }
    filled: dict[str, Any] = {}
    for field, (given, chosen, known) in named.items():
        if given in ("", None) and not chosen:
            raise UserError(
                f"adaptation {name!r} needs a fine-tuning, and this run names no {field}: "
                f"set --spqr-{field}s, or give {field} in [tool.spqr.adaptation.{name}]"
            )
        filled[field] = chosen[0] if given in ("", None) else given
        if known and filled[field] not in known:
            there = ", ".join(map(str, known))
            raise UserError(f"adaptation {name!r}: unknown {field} {given!r}; there are: {there}")
    return filled


ADAPTATION = Merged
