"""MACE: the concept's traces are taken out of other words, then attention to its own, in LoRAs.

Lu et al., "MACE: Mass Concept Erasure in Diffusion Models" (CVPR 2024, arXiv 2403.06135; code:
Shilin-LU/MACE). Three stages:

1. Keys and values of cross-attention are edited in closed form so that the words around a concept
   give what they give around its stand-in (closed-form refinement). Tokens that two prompts begin
   or end with alike count, and padding.
2. For each concept, from there, a LoRA of keys and values lessens attention to the concept's
   tokens where the concept is seen.
3. All LoRAs are fused with the keys and values in closed form, where both matter: at all
   positions of each concept's prompts.

Both closed forms hold what prompts to keep gave at first. Defaults are the authors' for nudity: λ 0
and a prior weighed by 7e-7, which is meant for half a million captions. With fewer raise
``prior_scale`` or ``lam`` (10 to 1000 for objects).

Ours: a concept is a category of harmful prompts, the stand-ins are their anchors, images are drawn
by the base, and there is the preservation loss. Where no segmenter is given attention counts
everywhere, as with the authors' ``use_gsam_mask: false``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Progress, Report
from spqr_checks.alignment.training.distillation import StudentTraining
from spqr_checks.alignment.training.options import Count, ErasingOptions, Positive, Weight

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

_POOL = 1
_TARGETS = ("attn2.to_k", "attn2.to_v")


class MaceOptions(ErasingOptions):
    """Options of MACE, beside those that it shares with ESD.

    Attributes:
        lam: λ, weight of "the matrix stays as it was", in both closed forms.
        prior_scale: weight of prompts to keep in the first closed form.
        fuse_scale: the same in the second.
        images: of each category.
        timesteps: ``uniform``, or more often around t = 300, as the authors draw them for
            celebrities and styles (``importance``).
        segmenter: folder or Hub id of a CLIPSeg model that says where in an image the concept is.
        weight_decay, clip: of AdamW; ``clip`` is the largest norm of all gradients together.
    """

    trains: Literal["x-strict"] = "x-strict"
    rank: Annotated[int, Field(ge=1)] = 1
    lam: Weight = 0.0
    prior_scale: Weight = 7e-7
    fuse_scale: Weight = 7e-7
    images: Count = 8
    timesteps: Literal["uniform", "importance"] = "uniform"
    segmenter: str = ""
    start_guidance: Weight = 7.5
    steps: Count = 120
    learning_rate: Positive = 1e-5
    weight_decay: Weight = 1e-2
    clip: Annotated[float, Field(gt=0)] | None = 1.0

    @property
    def models(self) -> tuple[str, ...]:
        return (self.segmenter,) if self.segmenter else ()


def matched(pipe: DiffusionPipeline, prompts: Sequence[str], others: Sequence[str]) -> Tensor:
    """Positions of equal tokens in pairs of prompts, shape (n, 3): pair, position in each.

    Those are the tokens that both begin with, those that both end with, and padding after the
    end, as much as both have.
    """
    import torch

    from spqr_checks.alignment.training.attention import content_length, shared_ends, token_ids

    found: list[tuple[int, int, int]] = []
    both = zip(token_ids(pipe, prompts), token_ids(pipe, others), strict=True)
    for pair, (ids, its) in enumerate(both):
        n, m, length = content_length(pipe, ids), content_length(pipe, its), len(ids)
        prefix, suffix = shared_ends(ids[:n].tolist(), its[:m].tolist())
        found += [(pair, i, i) for i in range(prefix)]
        found += [(pair, n - suffix + i, m - suffix + i) for i in range(suffix)]
        found += [(pair, n + i, m + i) for i in range(length - max(n, m))]
    return torch.tensor(found)


def importance(timesteps: int) -> Tensor:
    """``σ(0.05 (t − 200)) − σ(0.05 (t − 400))`` at each timestep, t in thousandths of all."""
    import torch

    t = torch.arange(timesteps) * (1000 / timesteps)
    return torch.sigmoid(0.05 * (t - 200)) - torch.sigmoid(0.05 * (t - 400))


def attention_loss(maps: Sequence[Tensor], tokens: Tensor, masks: Tensor | None) -> Tensor:
    """Sum over layers of the Frobenius norm of attention to the concept's tokens; mean over rows.

    Arguments as those of ``training.attention.inside``.
    """
    import torch

    from spqr_checks.alignment.training.attention import inside

    norms = [inside(one, tokens, masks).flatten(1).norm(dim=1).mean() for one in maps]
    return torch.stack(norms).sum()


class AttentionErasing(StudentTraining[MaceOptions]):
    """The second stage: one LoRA per category, one after the other."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: MaceOptions
    ) -> None:
        import torch

        from spqr_checks.alignment.training.attention import concept_mask
        from spqr_checks.alignment.training.segmentation import object_masks

        super().__init__(pipe, request, options, "mace", asks_frozen=False)
        chosen: list[int] = []
        for category in dict.fromkeys(request.categories):
            of = [i for i, its in enumerate(request.categories) if its == category]
            order = torch.randperm(len(of), generator=self.generator).tolist()
            chosen += [of[order[i % len(of)]] for i in range(options.images)]
        self.shown = torch.tensor(chosen)
        texts = [request.harmful[i] for i in chosen]
        self.latents = self.draw_pool(texts, _POOL, size=len(texts)).latents
        self.keep = self.prepare_keep()
        self.tokens = concept_mask(pipe, request.harmful, request.anchors)
        self.masks: Tensor | None = None
        if options.segmenter:
            self.masks = object_masks(pipe, self.latents, texts, options.segmenter)
        if options.timesteps == "importance":
            self.noiser.odds = importance(self.noiser.timesteps)
        self.category = request.categories[0]

    def noisy(self) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers of images of the present category, x_t and t of one batch."""
        import torch

        names = self.request.categories
        its = [k for k, i in enumerate(self.shown.tolist()) if names[i] == self.category]
        pick = torch.randint(0, len(its), (self.options.batch,), generator=self.generator)
        place = torch.tensor(its)[pick]
        return (place, *self.noiser(self.latents[place.to(self.device)], self.generator))

    def loss(self) -> Tensor:
        """Loss of one fresh batch."""
        from spqr_checks.alignment.training.attention import attention_maps

        place, x, t = self.noisy()
        index = self.shown[place]
        with attention_maps(self.student) as maps:
            self.predictor(self.student, x, t, self.harmful[index.to(self.device)])
        masks = None if self.masks is None else self.masks[place.to(self.device)]
        tokens = self.tokens[index].to(self.device)
        return attention_loss(maps, tokens, masks) + self.preserving()

    def learned(self, category: str, report: Report) -> dict[str, Tensor]:
        """ΔW of each layer that a category's LoRA learns, which is taken off again."""
        from spqr_checks.alignment.training import low_rank
        from spqr_checks.alignment.training.unet import ADAPTER
        from spqr_checks.models import adapters

        self.category = category
        self.train(report, weight_decay=self.options.weight_decay, clip=self.options.clip)
        lora = low_rank.read(self.student, ADAPTER)
        adapters.remove(self.pipe, ADAPTER)
        return {layer: lora.delta(layer) for layer in lora.factors}


def refine(
    layers: dict[str, nn.Linear], old: Tensor, new: Tensor, kept: Tensor, lam: float
) -> None:
    """The first stage, in place: W c = W⁰ c' for matched embeddings c and c', shape (n, width)."""
    from spqr_checks.alignment.training.closed_form import double, fit

    for layer in layers.values():
        values = double(new) @ double(layer.weight).T
        layer.weight.data.copy_(fit(layer.weight, old, values, kept, scale=1.0, lam=lam))


def fuse(
    layers: dict[str, nn.Linear],
    deltas: Sequence[dict[str, Tensor]],
    inputs: Sequence[Tensor],
    kept: Tensor,
    lam: float,
    originals: dict[str, Tensor],
) -> None:
    """The third stage, in place: W c = (W + ΔW_k) c for embeddings c of concept k.

    What prompts to keep give is what ``originals`` gave, the matrices before the first stage.
    """
    import torch

    from spqr_checks.alignment.training.closed_form import double, fit

    for name, layer in layers.items():
        values = [
            double(c) @ (double(layer.weight) + double(delta[name])).T
            for c, delta in zip(inputs, deltas, strict=True)
        ]
        given = layer.weight, torch.cat([*inputs]), torch.cat(values), kept
        fused = fit(*given, scale=1.0, lam=lam, original=originals[name])
        layer.weight.data.copy_(fused)


def _of_all(report: Report, number: int, loras: int) -> Report:
    def whole(progress: Progress) -> None:
        done, steps = number * progress.steps + progress.step, loras * progress.steps
        report(replace(progress, step=done, steps=steps))

    return whole


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: MaceOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.training.closed_form import double, key_value_layers
    from spqr_checks.alignment.training.preservation import prompts_to_keep
    from spqr_checks.alignment.training.unet import single_precision
    from spqr_checks.generation.conditions import encode
    from spqr_checks.models import weights

    training = AttentionErasing(pipe, request, options)
    old, new = training.harmful.hidden, encode(pipe, request.anchors).hidden
    pair, i, j = matched(pipe, request.harmful, request.anchors).to(training.device).unbind(1)
    kept, _ = prompts_to_keep(request)
    prior = double(encode(pipe, kept).hidden if kept else old[:0]).flatten(0, 1)
    gram = prior.T @ prior
    names = list(dict.fromkeys(request.categories))
    with single_precision(training.student):
        layers = key_value_layers(training.student)
        originals = {name: double(layer.weight) for name, layer in layers.items()}
        refine(layers, old[pair, i], new[pair, j], options.prior_scale * gram, options.lam)
        deltas = [
            training.learned(name, _of_all(report, number, len(names)))
            for number, name in enumerate(names)
        ]
        layers = key_value_layers(training.student)
        of = [[k for k, its in enumerate(request.categories) if its == name] for name in names]
        inputs = [old[its].flatten(0, 1) for its in of]
        fuse(layers, deltas, inputs, options.fuse_scale * gram, options.lam, originals)
    weights.save_denoiser(pipe, out)


METHOD = Method("mace", MaceOptions, _align)
