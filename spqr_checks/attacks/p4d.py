"""Prompting4Debugging: tokens with which the attacked denoiser predicts what the original does.

Chin et al., "Prompting4Debugging: Red-Teaming Text-to-Image Diffusion Models by Finding Problematic
Prompts" (ICML 2024, arXiv 2309.06135), equation 4. Variant N learns a whole prompt of its own,
variant K one token before every few of the prompt's. In each step the embeddings are projected to
the nearest ones of the vocabulary; the gradient there moves the unprojected ones (as in PEZ).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.attacks.attack import (
    DENOISERS,
    Attack,
    AttackRequest,
    Found,
    Options,
    Progress,
    Report,
    Target,
    finite,
)

if TYPE_CHECKING:
    from torch import Tensor

    from spqr_checks.attacks.search.vocabulary import Vocabulary


class P4DOptions(Options):
    """Options of P4D; the defaults are the authors'.

    Attributes:
        variant: ``n``: ``tokens`` new ones; ``k``: one before every ``every`` tokens of the prompt.
        steps: of gradient descent; after every ``look`` of them a prompt is judged.
        targets: images of the original in each step.
        images: that the judge looks at each time. The authors take the text whose image is nearest
            to the original's by CLIP; ours is the one that is most unsafe.
        enough: mean P(unsafe) of these at which the search ends; the authors' does not.
    """

    variant: Literal["n", "k"] = "n"
    tokens: Annotated[int, Field(ge=1, le=75)] = 16
    every: Annotated[int, Field(ge=1)] = 3
    steps: Annotated[int, Field(ge=1)] = 3000
    look: Annotated[int, Field(ge=1)] = 50
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    targets: Annotated[int, Field(ge=1)] = 1
    images: Annotated[int, Field(ge=1)] = 1
    enough: Annotated[float, Field(gt=0, le=1)] = 1.0


def layout(own: list[int], options: P4DOptions, most: int) -> tuple[list[int | None], list[int]]:
    """The row of tokens, None where one is learned, and the places of these.

    Args:
        own: the prompt's tokens.
        most: tokens that fit.
    """
    if options.variant == "n":
        row: list[int | None] = [None] * min(options.tokens, most)
    else:
        row = []
        for place in range(0, len(own), options.every):
            row += [None, *own[place : place + options.every]]
        if len(own) % options.every == 0:
            row.append(None)
        row = row[:most]
    return row, [place for place, token in enumerate(row) if token is None]


def _run(target: Target, request: AttackRequest, options: P4DOptions, report: Report) -> Found:
    import torch
    from torch.nn.functional import normalize

    from spqr_checks.attacks.search.denoising import Best, Denoising
    from spqr_checks.attacks.search.encoders import Lead
    from spqr_checks.attacks.search.vocabulary import Vocabulary

    lead = Lead(target.pipe, "tokens", "p4d")
    if options.compat:
        lead.pad_with(0)
    vocabulary = Vocabulary(lead.tokenizer, options.compat)
    generator = torch.Generator().manual_seed(request.seed)
    best = Best(target, options.images, options.enough)
    task = Denoising(target, lead, request, options.targets, generator)
    row, places = layout(lead.ids(request.prompt), options, lead.most)
    tables = [table.detach()[vocabulary.ids.to(table.device)].float() for table in lead.tables]
    first = torch.randint(len(vocabulary.ids), (len(places),), generator=generator)
    free = [table[first.to(table.device)].clone().requires_grad_() for table in tables]
    rate, decay = options.learning_rate, options.weight_decay
    optimizer = torch.optim.AdamW(free, rate, weight_decay=decay)
    loss, ahead = torch.zeros(()), deque[tuple["Tensor", "Tensor", "Tensor"]]()
    directions = [normalize(table, dim=-1).T for table in tables]
    for step in range(1, options.steps + 1):
        if not ahead:
            ahead.extend(task.ahead(min(options.look, options.steps - step + 1)))
        nearest = _nearest(free, directions)
        tokens = vocabulary.ids[nearest].tolist()
        text = _text(row, tokens, vocabulary)
        there = [table[nearest.to(table.device)].clone().requires_grad_() for table in tables]
        filled = [*row]
        for place, token in zip(places, tokens, strict=True):
            filled[place] = token
        soft = [each[None] for each in there]
        states = lead.encode(torch.tensor([filled]), [text], soft, places)
        t, noisy, wish = ahead.popleft()
        loss = (task.predicted(noisy, t, states) - wish).square().mean()
        finite(float(loss.detach()), "p4d")
        for each, gradient in zip(free, torch.autograd.grad(loss, there), strict=True):
            each.grad = gradient
        optimizer.step()
        report(Progress(step, options.steps))
        if step % options.look == 0 or step == options.steps:
            last = vocabulary.ids[_nearest(free, directions)].tolist()
            if best.try_(_text(row, last, vocabulary)):
                break
    text, unsafe = best.found
    return Found(text, step, {"loss": float(loss.detach()), "unsafe": unsafe})


def _nearest(free: list[Tensor], directions: list[Tensor]) -> Tensor:
    """Of each place the token whose embeddings are nearest by cosine, summed over the encoders.

    Args:
        directions: of each encoder the vocabulary's embeddings at length 1, shape (width, tokens).
    """
    import torch
    from torch.nn.functional import normalize

    with torch.no_grad():
        cosines = [normalize(e, dim=-1) @ d for e, d in zip(free, directions, strict=True)]
        return torch.stack([each.cpu() for each in cosines]).sum(0).argmax(-1)


def _text(row: list[int | None], tokens: list[int], vocabulary: Vocabulary) -> str:
    """The learned words between those of the prompt."""
    parts: list[str] = []
    own: list[int] = []
    left = iter(tokens)
    for token in row:
        if token is not None:
            own.append(token)
            continue
        parts += [vocabulary.own(own), vocabulary.text([next(left)])]
        own = []
    return " ".join(part for part in [*parts, vocabulary.own(own)] if part)


ATTACK = Attack("p4d", "weights", P4DOptions, _run, reads="tokens", through=DENOISERS)
