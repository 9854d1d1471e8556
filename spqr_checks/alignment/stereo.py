"""STEREO: searches for prompts that bring the concept back, and erases those as well.

Srivatsan et al., "STEREO: A Two-Stage Framework for Adversarially Robust Concept Erasing from
Text-to-Image Diffusion Models" (CVPR 2025, arXiv 2408.16807; code:
koushiksrivats/robust-concept-erasing). Two stages:

1. *Search thoroughly enough.* For some rounds, each from the last one's UNet, the present prompt is
   erased, ``e(c) − (s − 1)(e(c) − e(""))`` with e the round's first UNet, and a token is learned
   that makes the erased UNet draw the concept's images again. That is the next round's prompt.
2. *Robustly erase once.* From the original UNet, the concept and the learned tokens E are erased
   together towards an anchor a: at a random one of E,
   ``e("") + (s − 1)(e(a) − e("")) − (s + 1) mean_{y ∈ E} (e(y) − e(""))``.

Defaults are the authors' for nudity: two rounds of 200 and 3000 steps, s 2, so that the first
target is e("") and the second has weights 1 and −3, and the second stage of 200 steps. Their
adaptive projected guidance has no effect at these settings, and is left out.

Ours: a concept is a category of harmful prompts with their anchors, images are drawn by the base,
latents may be of a pool, and there is the preservation loss.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spqr_checks.alignment.method import Method, unet_of
from spqr_checks.alignment.request import AlignmentRequest, Report, no_report
from spqr_checks.alignment.training.distillation import Distillation, Lesson
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
    from torch import Tensor, nn

    from spqr_checks.generation.conditions import Conditions

_POOL = 1
_MARGINS = 1, 1
"""A drawing is stopped after 1 to 48 of 50 steps."""


class StereoOptions(ErasingOptions):
    """Options of STEREO, beside those that it shares with ESD; ``steps`` are the second stage's.

    Attributes:
        strength: s.
        rounds: of the search; each learns one token per category of harmful prompts.
        tokens: how many of these tokens are erased in the end.
        search_steps, search_rate: of erasing in a round.
        inversion_steps, inversion_rate, inversion_batch: of learning a token.
        template: the prompt around a learned token.
        initial: word that learning starts from; a random one if not given.
        latents: drawn part of the way by the ``student``, or a ``pool`` drawn once by the base.
        weight_decay: of AdamW.
    """

    trains: Trains = "u-current"
    rank: Literal[0] = 0
    strength: Positive = 2.0
    rounds: Whole = 2
    tokens: Whole = 2
    search_steps: Count = 200
    search_rate: Positive = 5e-6
    inversion_steps: Count = 3000
    inversion_rate: Positive = 5e-3
    inversion_batch: Count = 1
    template: str = "a photo of a {}"
    initial: str = ""
    latents: Literal["student", "pool"] = "student"
    steps: Count = 200
    learning_rate: Positive = 2e-5
    weight_decay: Weight = 1e-2


def robust_target(
    empty: Tensor, anchor: Tensor, erased: Sequence[Tensor], strength: float
) -> Tensor:
    """The second stage's target; ``erased`` are the predictions for all of E."""
    import torch

    away = torch.stack([one - empty for one in erased]).mean(0)
    return empty + (strength - 1) * (anchor - empty) - (strength + 1) * away


class Robust(Distillation[StereoOptions]):
    """One training by STEREO."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: StereoOptions
    ) -> None:
        from spqr_checks.generation.conditions import encode

        super().__init__(pipe, request, options, "stereo", asks_frozen=True)
        self.anchors = encode(pipe, request.anchors)
        self.pool = self.draw_pool(request.harmful, _POOL, fill=True)
        self.keep = self.prepare_keep()
        self.learned: dict[str, list[Conditions]] = {}
        self.searched: tuple[str, nn.Module] | None = None
        """The category of a round of the search, and the UNet that it began with."""

    def numbers(self, category: str) -> Tensor:
        """Numbers of a category's harmful prompts."""
        import torch

        return torch.tensor([i for i, its in enumerate(self.request.categories) if its == category])

    def noisy(self, prompts: Conditions, index: Tensor) -> tuple[Tensor, Tensor]:
        """x_t and t for prompts about the harmful prompts ``index``."""
        import torch

        if self.options.latents == "student":
            return self.draw_partly(self.student, prompts, _MARGINS)
        shown = self.pool.shows
        alike = (shown[None] == index.cpu()[:, None]).float() + 1e-12
        place = torch.multinomial(alike, 1, generator=self.generator)[:, 0]
        return self.noiser(self.pool.at(place)[1], self.generator)

    def lesson(self) -> Lesson:
        """A batch of one category: of the present round, or of the second stage."""
        import torch

        from spqr_checks.generation.conditions import joined

        n, generator, names = self.options.batch, self.generator, self.request.categories
        if self.searched is not None:
            category, reference = self.searched
        else:
            chosen = int(torch.randint(0, len(names), (1,), generator=generator))
            category, reference = names[chosen], self.frozen
        among = self.numbers(category)
        pick = torch.randint(0, len(among), (n,), generator=generator)
        index = among[pick].to(self.device)
        concept, tokens = self.harmful[index], self.learned.get(category, [])
        if self.searched is not None:
            asked = tokens[-1].repeated(n) if tokens else concept
            x, t = self.noisy(asked, index)
            empty, erased = self.asks(reference, x, t, [self.unconditional.repeated(n), asked])
            target = erased - (self.options.strength - 1) * (erased - empty)
            return Lesson(asked, x, t, target)
        all_of = [concept, *(token.repeated(n) for token in tokens[: self.options.tokens])]
        asked = all_of[int(torch.randint(0, len(all_of), (1,), generator=generator))]
        x, t = self.noisy(asked, index)
        prompts = [self.unconditional.repeated(n), self.anchors[index], *all_of]
        empty, anchor, *erased_all = self.asks(reference, x, t, prompts)
        target = robust_target(empty, anchor, erased_all, self.options.strength)
        return Lesson(joined([asked]), x, t, target)

    def asks(
        self, network: nn.Module, x: Tensor, t: Tensor, prompts: Sequence[Conditions]
    ) -> list[Tensor]:
        """A network's predictions for several batches of prompts at the same latents."""
        import torch

        with torch.no_grad():
            return [self.predictor(network, x, t, some) for some in prompts]

    def search(self, category: str) -> None:
        """The first stage for one category; the student is then as it was."""
        import torch

        from spqr_checks.alignment.training.inversion import Slots, first_rows, invert
        from spqr_checks.alignment.training.latents import Pool
        from spqr_checks.alignment.training.training import optimise
        from spqr_checks.generation.conditions import Conditions

        options, pipe, found = self.options, self.pipe, list[Conditions]()
        self.learned[category] = found
        slots = Slots.of(pipe, options.template, 1)
        its = torch.isin(self.pool.shows, self.numbers(category))
        pool = Pool(self.pool.latents[its.to(self.device)], self.pool.shows[its])
        for _ in range(options.rounds):
            reference = copy.deepcopy(self.student).requires_grad_(False)
            self.searched = category, reference
            erasing = TrainingOptions(steps=options.search_steps)
            optimise(
                self.parameters(),
                self.loss,
                erasing,
                learning_rate=options.search_rate,
                report=no_report,
                weight_decay=options.weight_decay,
            )
            vectors = invert(
                pipe,
                slots,
                first_rows(pipe, options.initial.split(), 1, self.generator),
                pool,
                TrainingOptions(steps=options.inversion_steps, batch=options.inversion_batch),
                predictor=self.predictor,
                noiser=self.noiser,
                learning_rate=options.inversion_rate,
                weight_decay=options.weight_decay,
                generator=self.generator,
                report=no_report,
            )
            with torch.no_grad():
                found.append(Conditions(slots.states(pipe, vectors)))
        self.searched = None
        self.student.load_state_dict(self.frozen.state_dict())

    def started(self) -> None:
        """Searches for the tokens of every category."""
        for category in dict.fromkeys(self.request.categories):
            self.search(category)
        self.parameters()


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: StereoOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.training.inversion import refuse_several_encoders

    unet_of(pipe, "stereo")
    refuse_several_encoders(pipe, "stereo")
    Robust(pipe, request, options).run(out, report, weight_decay=options.weight_decay)


METHOD = Method("stereo", StereoOptions, _align)
