"""SC-DPO: preferences constrained by a safety cost, hard pairs weighted up.

After "Safety-Constrained DPO" (arXiv 2504.14290), of which neither code nor formulas were
published: all of this is our reconstruction from its abstract. There, reward is preference minus
safety cost, pairs stand under harmful and clean instructions, and a Dynamic Focusing Mechanism
favours hard pairs. Its cost model is a trained CLIP; here the request itself knows which image
was drawn from a harmful prompt. No judge of images takes part; what an image shows is taken from
the prompt it was drawn from:

- preference of an image under a caption: the cosine between the two prompts' embeddings (mean
  over tokens), which is 1 for the image of the caption itself;
- cost of an image: 1 if its prompt is one of the harmful ones, else 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.options import Positive, PreferenceOptions, Weight, Whole
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

    from spqr_checks.alignment.training.pair_images import Pairs
    from spqr_checks.alignment.training.views import View


class ScDpoOptions(PreferenceOptions):
    """Options of SC-DPO beside those of all preference methods.

    ``learning_rate`` is 1e-5 · pairs of a step if not given.

    Attributes:
        lam: λ of the reward, preference − λ · cost.
        gamma: γ of the focal weight (1 − σ(inside))^γ; 0 weighs all pairs alike.
        margin: pairs are weighed by (r_w − r_l)^margin, over its mean; 0 weighs all alike.
        clean: pairs per category whose caption is a prompt to keep: its own image is preferred
            to that of a harmful prompt.
    """

    lam: Positive = 1.0
    gamma: Weight = 2.0
    margin: Weight = 1.0
    clean: Whole = 0


def rewards(preference: Tensor, cost: Tensor, lam: float) -> Tensor:
    """Reward of images: preference − λ · cost."""
    return preference - lam * cost


def rewarded_pairs(
    view: View, request: AlignmentRequest, options: ScDpoOptions
) -> tuple[Pairs, Tensor]:
    """Pairs under harmful and clean captions, and the weight of each.

    The anchor's and the harmful prompt's image, from one seed, meet twice: with the harmful prompt
    as caption, and with the anchor. ``clean`` more per category have a prompt to keep as caption,
    and its image in the anchor's place. In each the image of higher reward wins; pairs of equal
    reward are left out. Weights are (r_w − r_l)^margin over its mean. Raises UserError: a harmful
    prompt has no anchor, or λ is so small that under no harmful prompt the safe image wins: such a
    training would teach the harm.
    """
    import torch

    from spqr_checks.alignment.training.pair_images import (
        Pairs,
        choose_each,
        draw_both,
        joined,
        pair_seed,
        texts_of,
    )

    lam, choices = options.lam, choose_each(request, options.pairs)
    safe, unsafe = draw_both(view, request, choices)
    anchors, harmful = texts_of(request, choices)
    # first the images and their prompts, the anchor's side first, then the caption they meet under
    drawn = [
        (Pairs(safe, unsafe, harmful, harmful), anchors, harmful),
        (Pairs(safe, unsafe, anchors, anchors), anchors, harmful),
    ]
    near = choose_each(request, options.clean) if options.clean and request.keep else []
    if near:
        generator = torch.Generator().manual_seed(request.seed)
        pick = torch.randint(0, len(request.keep), (len(near),), generator=generator).tolist()
        keep, (_, bad) = [request.keep[i] for i in pick], texts_of(request, near)
        seeds = [pair_seed(request, choice, "clean") for choice in near]
        first, second = (view.draw_seeded(texts, seeds, request.sampler) for texts in (keep, bad))
        drawn.append((Pairs(first, second, keep, keep), keep, bad))
    together = joined([part for part, _, _ in drawn])
    first_prompts = [text for _, texts, _ in drawn for text in texts]
    second_prompts = [text for _, _, texts in drawn for text in texts]
    gap = _reward(view, request, first_prompts, together.captions, lam) - _reward(
        view, request, second_prompts, together.captions, lam
    )
    if not bool((gap[: len(choices)] > 0).any()):
        raise UserError(
            f"sc-dpo: with lam {lam:g} the harmful image wins under every harmful prompt, which "
            "would teach the harm\nraise lam: an image's preference goes up to 1, its cost is lam"
        )
    return _ordered(together, gap, options.margin)


def _reward(
    view: View,
    request: AlignmentRequest,
    prompts: list[str],
    captions: list[str],
    lam: float,
) -> Tensor:
    """Reward of the images of ``prompts`` under ``captions``, shape (n,)."""
    import torch
    import torch.nn.functional as F

    bad = set(request.harmful)
    cost = torch.tensor([float(prompt in bad) for prompt in prompts])
    seen, wanted = (_meaning(view.encode(texts)) for texts in (prompts, captions))
    return rewards(F.cosine_similarity(seen, wanted), cost, lam)


def _meaning(told: Any) -> Tensor:
    """The mean over the tokens that the denoiser reads, shape (prompts, width)."""
    hidden: Tensor = told.hidden.float().cpu()
    if not hasattr(told, "mask"):
        return hidden.mean(dim=1)
    read: Tensor = told.mask.cpu().float()[:, :, None]
    return (hidden * read).sum(dim=1) / read.sum(dim=1)


def _ordered(pairs: Pairs, gap: Tensor, margin: float) -> tuple[Pairs, Tensor]:
    """Each pair with its winner first; ``gap`` is the first image's reward minus the second's."""
    import torch

    from spqr_checks.alignment.training.pair_images import Pairs

    kept = gap.nonzero().flatten()
    index = kept.to(pairs.winners.device)
    swap = (gap[kept] < 0).to(pairs.winners.device)[:, None, None, None]
    first, second = pairs.winners[index], pairs.losers[index]
    captions = [pairs.captions[i] for i in kept.tolist()]
    ordered = Pairs(
        torch.where(swap, second, first), torch.where(swap, first, second), captions, captions
    )
    weights = gap[kept].abs() ** margin
    return ordered, weights / weights.mean()


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: ScDpoOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.training.preference import Preference
    from spqr_checks.alignment.training.views import view_of

    view = view_of(pipe, request.sampler, "sc-dpo")
    pairs, weights = rewarded_pairs(view, request, options)
    objective = Preference(view, request, pairs, options, focus=options.gamma, weights=weights)
    objective.align(out, report)


METHOD = Method("sc-dpo", ScDpoOptions, _align, transformers=True)
