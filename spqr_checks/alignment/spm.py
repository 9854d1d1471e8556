"""SPM: a one-dimensional adapter per concept, which acts as far as a prompt is about its concept.

Lyu et al., "One-dimensional Adapter to Rule Them All: Concepts, Diffusion Models and Erasing
Applications" (CVPR 2024, arXiv 2312.16145; code: Con6924/SPM). The erasing loss is
``|e_on(c) − (e("") − η (e(c) − e("")))|²``, and random embeddings a far from the concept are to be
predicted as without the adapter, ``1000 |e_on(a) − e(a)|²``. When images are
drawn, each adapter is scaled by how near the prompt is to its concept ("facilitated transport"):
the entry is a guidance, ``generation.guidance.spm``. Defaults are the authors' example.

Deviations: AdamW without 8 bits, one image size. Ours: concepts may be the categories of the
harmful prompts, with all of these; anchors in the place of the empty prompt; latents of a pool; the
preservation loss; and an ordinary adapter without transport.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from spqr_checks.alignment.method import Method, unet_of
from spqr_checks.alignment.request import AlignmentRequest, Progress, Report
from spqr_checks.alignment.training.distillation import Distillation, Lesson
from spqr_checks.alignment.training.options import Count, ErasingOptions, Positive, Weight, Whole
from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.spm import Transport

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

_POOL = 1
_MARGINS = 1, 0
"""A drawing is stopped after 1 to 29 of 30 steps."""


class SpmOptions(ErasingOptions):
    """Options of SPM, beside those that it shares with ESD.

    Attributes:
        erases: one adapter for each of the request's ``concepts``, by name; one for each
            ``category`` of harmful prompts, or one for ``all`` of them.
        guide: what e("") is in the loss: ``empty``, or each harmful prompt's ``anchors``.
        eta: η.
        anchors: random embeddings held per step.
        anchor_weight: of their loss.
        latents: drawn part of the way by the ``student``, or a ``pool`` drawn once by the base.
        transport: how adapters are scaled for a prompt: ``paper``, each by its own score;
            ``compat``, as the authors' code, which scales both factors of every adapter and adds
            up factors, so that scores are squared and adapters mix; ``none``, always wholly, which
            makes an ordinary adapter of one concept or of all.
        metric: the score: the ``cosine`` of the embeddings, the share of the concept's ``tokens``
            in the prompt, or the larger of ``both``.
        weight_decay: of AdamW.
    """

    trains: Literal["all"] = "all"
    erases: Literal["concepts", "category", "all"] = "concepts"
    guide: Literal["empty", "anchors"] = "empty"
    eta: Weight = 1.0
    anchors: Whole = 4
    anchor_weight: Weight = 1000.0
    latents: Literal["student", "pool"] = "student"
    transport: Literal[Transport, "none"] = "paper"
    metric: Literal["cosine", "tokens", "both"] = "both"
    rank: Annotated[int, Field(ge=1)] = 1
    alpha: Positive | None = 1.0
    steps: Count = 3000
    learning_rate: Positive = 1e-4
    sampling_steps: Count | None = 30
    warmup: Whole | None = 500
    schedule: Literal["constant", "cosine"] = "cosine"
    cycles: Count = 3
    weight_decay: Weight = 1e-2

    @model_validator(mode="before")
    @classmethod
    def _fits(cls, given: Any) -> Any:
        if isinstance(given, dict):
            erases = given.get("erases", "concepts")
            if given.get("guide") == "anchors" and erases == "concepts":
                raise ValueError("guide = 'anchors' needs erases = 'category' or 'all'")
            if given.get("transport") == "none" and erases != "all":
                raise ValueError("transport = 'none' needs erases = 'all'")
        return given


def wishes(request: AlignmentRequest, options: SpmOptions) -> dict[str, AlignmentRequest]:
    """What each adapter is trained on, by its name. UserError: there are no concepts by name."""
    if options.erases == "all":
        return {"all": request}
    if options.erases == "concepts":
        if not request.concepts:
            raise UserError(
                "method 'spm' erases concepts by name, and the training set names none; say "
                "erases = 'category' or 'all' to take its harmful prompts"
            )
        return {
            name: replace(request, harmful=[name], anchors=[""], categories=[])
            for name in request.concepts
        }
    found = {}
    for category in dict.fromkeys(request.categories):
        of = [i for i, its in enumerate(request.categories) if its == category]
        harmful, anchors = ([texts[i] for i in of] for texts in (request.harmful, request.anchors))
        found[category] = replace(request, harmful=harmful, anchors=anchors, categories=[])
    return found


class Membrane(Distillation[SpmOptions]):
    """The training of one adapter."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: SpmOptions
    ) -> None:
        from spqr_checks.generation.conditions import encode

        super().__init__(pipe, request, options, "spm", asks_frozen=False)
        guided = options.guide == "anchors"
        guides = request.anchors if guided else [""] * len(request.harmful)
        self.guides = encode(pipe, guides)
        if options.latents == "pool":
            self.pool = self.draw_pool(request.harmful, _POOL, fill=True)
        self.keep = self.prepare_keep()

    def parameters(self) -> list[nn.Parameter]:
        """The adapter's."""
        from spqr_checks.alignment.training import spm_adapter

        rank = self.options.rank
        alpha = self.options.alpha or float(rank)
        return spm_adapter.add(self.student, rank, alpha, self.request.seed)

    def noisy(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt numbers, x_t and t of one batch."""
        import torch

        n = self.options.batch
        if self.options.latents == "pool":
            index, z = self.pool.pick(n, self.generator)
            return (index.to(self.device), *self.noiser(z, self.generator))
        index = torch.randint(0, len(self.harmful), (n,), generator=self.generator).to(self.device)
        return (index, *self.draw_partly(self.student, self.harmful[index], _MARGINS))

    def lesson(self) -> Lesson:
        """Harmful prompts, with the target of the erasing loss."""
        import torch

        from spqr_checks.alignment.training.unet import adapter_off
        from spqr_checks.generation.conditions import joined

        index, x, t = self.noisy()
        prompts = joined([self.guides[index], self.harmful[index]])
        with adapter_off(self.student), torch.no_grad():
            both = self.predictor(self.student, x.repeat(2, 1, 1, 1), t.repeat(2), prompts)
        without, concept = both.chunk(2)
        target = without - self.options.eta * (concept - without)
        self.last = index, x, t
        return Lesson(self.harmful[index], x, t, target)

    def held(self) -> Tensor:
        """The loss of random embeddings, at the first latent of the lesson."""
        import torch
        import torch.nn.functional as F

        from spqr_checks.alignment.training import spm_adapter
        from spqr_checks.alignment.training.unet import adapter_off
        from spqr_checks.generation.conditions import Conditions

        (index, x, t), n = self.last, self.options.anchors
        concept = self.harmful[index[:1]]
        far = spm_adapter.anchors(concept.hidden[0], n, self.generator)
        pooled = concept.pooled
        if pooled is not None:
            pooled = spm_adapter.anchors(pooled[0], n, self.generator)
        given = x[:1].expand(n, -1, -1, -1), t[:1].expand(n), Conditions(far, pooled)
        with adapter_off(self.student), torch.no_grad():
            target = self.predictor(self.student, *given)
        return F.mse_loss(self.predictor(self.student, *given), target)

    def loss(self) -> Tensor:
        """Loss of one fresh batch."""
        loss, options = super().loss(), self.options
        if options.anchors and options.anchor_weight:
            loss = loss + options.anchor_weight * self.held()
        return loss


def _of_all(report: Report, number: int, adapters: int) -> Report:
    def whole(progress: Progress) -> None:
        done, steps = number * progress.steps + progress.step, adapters * progress.steps
        report(replace(progress, step=done, steps=steps))

    return whole


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: SpmOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.training.unet import ADAPTER, single_precision
    from spqr_checks.generation.guidance.base import attach_guidance
    from spqr_checks.generation.guidance.registry import save_guidance
    from spqr_checks.generation.guidance.spm import SpmGuidance
    from spqr_checks.models import adapters

    network, asked = unet_of(pipe, "spm"), wishes(request, options)
    if options.transport == "none":
        Membrane(pipe, request, options).run(out, report, weight_decay=options.weight_decay)
        return
    trained: dict[str, dict[str, Tensor]] = {}
    with single_precision(network):
        for number, (name, wish) in enumerate(asked.items()):
            training = Membrane(pipe, wish, options)
            training.train(_of_all(report, number, len(asked)), weight_decay=options.weight_decay)
            tensors = adapters.adapter_tensors(network, ADAPTER)
            trained[name] = {k: t.detach().cpu().clone() for k, t in tensors.items()}
            adapters.remove(pipe, ADAPTER)
    guidance = SpmGuidance.of(
        trained,
        {name: _distinct(wish.harmful) for name, wish in asked.items()},
        alpha=options.alpha or float(options.rank),
        transport=options.transport,
        metric=options.metric,
    )
    attach_guidance(pipe, guidance)
    save_guidance(guidance, out)


def _distinct(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


# users fine-tune the UNet, which is the base's own; adapters of SPM act beside any fine-tuning
METHOD = Method("spm", SpmOptions, _align, attach="base")
