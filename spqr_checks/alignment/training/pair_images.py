"""Pairs of images for preference methods: what a harmful prompt gives, and what is to be instead.

The model under alignment draws both itself. Images are latents here; no decoder takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.views import View
from spqr_checks.errors import UserError
from spqr_checks.hashing import digest

Pairing = Literal["unsafe_prompt", "both"]


@dataclass(frozen=True)
class Choice:
    """A pair to be drawn: number of its harmful prompt, and which of that prompt's seeds."""

    prompt: int
    turn: int


@dataclass(frozen=True)
class Pairs:
    """Images of which the first is to be preferred, and the captions they are judged under.

    Attributes:
        winners, losers: finished latents, shape (n, channels, h, w).
        captions: a caption for each winner.
        loser_captions: a caption for each loser; mostly the winner's.
    """

    winners: Tensor
    losers: Tensor
    captions: list[str]
    loser_captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Several sets of pairs as one."""
    return Pairs(
        torch.cat([part.winners for part in parts]),
        torch.cat([part.losers for part in parts]),
        [caption for part in parts for caption in part.captions],
        [caption for part in parts for caption in part.loser_captions],
    )


def choose(request: AlignmentRequest, pairs: int | None, category: str) -> list[Choice]:
    """Which pairs to draw of one category's harmful prompts.

    Every prompt has its turn before one has its second, with another seed. Fewer pairs than prompts
    are a random choice of them under the request's seed; ``None`` is one pair per prompt. Raises
    UserError: a prompt has no anchor, and so nothing to prefer to the concept.
    """
    prompts = [
        number for number, its_category in enumerate(request.categories) if its_category == category
    ]
    for number in prompts:
        if not request.anchors[number].strip():
            raise UserError(
                f"harmful prompt {request.harmful[number]!r} has no anchor, but a preference pair "
                "needs a safe prompt beside it\ngive every harmful prompt of the training set one"
            )
    n = len(prompts) if pairs is None else pairs
    generator = torch.Generator().manual_seed(request.seed)
    order = torch.randperm(len(prompts), generator=generator).tolist()
    return [Choice(prompts[order[i % len(order)]], i // len(order)) for i in range(n)]


def choose_each(request: AlignmentRequest, pairs: int | None) -> list[Choice]:
    """``choose`` for each category in turn, ``pairs`` of each."""
    return [
        choice
        for category in dict.fromkeys(request.categories)
        for choice in choose(request, pairs, category)
    ]


def pair_seed(request: AlignmentRequest, choice: Choice, what: str = "image") -> int:
    """Seed of a pair, in [0, 2⁶³): both images start from the same latent.

    It hangs on the pair's prompts and not on its number, so that other prompts may come and go.
    """
    texts = [request.harmful[choice.prompt], request.anchors[choice.prompt]]
    return int(digest([what, *texts, choice.turn, request.seed])[:16], 16) >> 1


def texts_of(request: AlignmentRequest, choices: Sequence[Choice]) -> tuple[list[str], list[str]]:
    """The anchors and the harmful prompts of pairs."""
    numbers = [choice.prompt for choice in choices]
    return [request.anchors[n] for n in numbers], [request.harmful[n] for n in numbers]


def draw_both(
    view: View, request: AlignmentRequest, choices: Sequence[Choice]
) -> tuple[Tensor, Tensor]:
    """Latents of the anchors and of the harmful prompts, each from the initial latent it shares."""
    seeds = [pair_seed(request, choice) for choice in choices]
    safe, unsafe = (
        view.draw_seeded(texts, seeds, request.sampler) for texts in texts_of(request, choices)
    )
    return safe, unsafe


def safety_pairs(
    view: View, request: AlignmentRequest, choices: Sequence[Choice], pairing: Pairing
) -> Pairs:
    """Pairs in which the anchor's image is preferred to the harmful prompt's.

    The caption is the harmful prompt (AlignGuard: a safe output for an unsafe input). With
    ``both`` every pair stands there again with its safe prompt as caption, which is an option of
    ours; so there are twice as many.
    """
    winners, losers = draw_both(view, request, choices)
    safe, harmful = texts_of(request, choices)
    pairs = Pairs(winners, losers, harmful, harmful)
    if pairing == "unsafe_prompt":
        return pairs
    return joined([pairs, Pairs(winners, losers, safe, safe)])


def edited_pairs(
    view: View,
    request: AlignmentRequest,
    choices: Sequence[Choice],
    strength: float,
    captions: Literal["own", "none"],
) -> Pairs:
    """DUO's pairs: the harmful prompt's image, and the same image edited to the anchor by SDEdit.

    The edit starts from the image noised ``strength`` of the way; the harmful prompt is its
    negative prompt, as in the authors' code. Captions are each image's ``own`` prompt, or empty.
    """
    anchors, harmful = texts_of(request, choices)
    seeds = [pair_seed(request, choice) for choice in choices]
    unsafe = view.draw_seeded(harmful, seeds, request.sampler)
    seeds = [pair_seed(request, choice, "edit") for choice in choices]
    safe = view.edit(unsafe, anchors, harmful, seeds, request.sampler, strength=strength)
    if captions == "none":
        harmful = anchors = [""] * len(choices)
    return Pairs(safe, unsafe, anchors, harmful)
