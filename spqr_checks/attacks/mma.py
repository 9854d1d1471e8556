"""MMA-Diffusion, text: a row of other words to which the text encoder gives the prompt's vector.

Yang et al., "MMA-Diffusion: MultiModal Attack on Diffusion Models" (CVPR 2024, arXiv 2311.17516),
section 3.2: greedy coordinate gradients on the cosine of the pooled text vectors, without the words
that a filter would look for. Here these are the words of the concept's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spqr_checks.attacks.attack import (
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
    from collections.abc import Sequence

    from torch import Tensor

    from spqr_checks.attacks.search.encoders import Lead


class MMAOptions(Options):
    """Options of MMA-Diffusion's textual attack; the defaults are the authors'.

    Attributes:
        tokens: length of the row.
        top: tokens of each place, by their gradient, that candidates are drawn from.
        candidates: in each step; each differs from the current row in one token.
        filtered: whether the words of the concept's name are left out of the vocabulary.
    """

    tokens: Annotated[int, Field(ge=2, le=75)] = 20
    steps: Annotated[int, Field(ge=1)] = 1000
    top: Annotated[int, Field(ge=1)] = 256
    candidates: Annotated[int, Field(ge=1)] = 512
    filtered: bool = True


def _run(target: Target, request: AttackRequest, options: MMAOptions, report: Report) -> Found:
    import torch

    from spqr_checks.attacks.search.encoders import Lead
    from spqr_checks.attacks.search.vocabulary import Vocabulary

    lead = Lead(target.pipe, "pooled", "mma")
    without = request.concept.split() if options.filtered else []
    vocabulary = Vocabulary(lead.tokenizer, options.compat, without)
    generator = torch.Generator().manual_seed(request.seed)
    with torch.no_grad():
        wish = lead.pooled(torch.tensor([lead.ids(request.prompt)]))
    k, evaluations = min(options.tokens, lead.most), 0
    row = vocabulary.draw((k,), generator)
    best, best_loss = row, finite(float(_losses(lead, row[None], wish)[0]), "mma")
    for step in range(1, options.steps + 1):
        top = _promising(lead, row, wish, vocabulary.ids, options)
        # places spread evenly, as the authors': candidate i changes place i · k / candidates
        places = (torch.arange(options.candidates) * k) // options.candidates
        chosen = torch.randint(top.shape[1], (options.candidates,), generator=generator)
        rows = row.repeat(options.candidates, 1)
        rows[torch.arange(options.candidates), places] = vocabulary.ids[top[places, chosen]]
        rows = rows[(rows != row).any(1)].unique(dim=0)
        if options.compat:
            rows = _readable(lead, rows, vocabulary.text)
        report(Progress(step, options.steps))
        if not len(rows):
            continue
        losses = _losses(lead, rows, wish)
        evaluations += len(rows)
        row, loss = rows[int(losses.argmin())], finite(float(losses.min()), "mma")
        if loss < best_loss:
            best, best_loss = row, loss
    return Found(vocabulary.text(best.tolist()), evaluations, {"loss": best_loss})


def _losses(lead: Lead, rows: Tensor, wish: Sequence[Tensor]) -> Tensor:
    import torch

    with torch.no_grad():
        return _distance(lead.pooled(rows), wish).float().cpu()


def _distance(found: Sequence[Tensor], wish: Sequence[Tensor]) -> Tensor:
    """1 − cosine, the mean over the encoders; shape (n,)."""
    import torch
    from torch.nn.functional import cosine_similarity

    return 1 - torch.stack(
        [cosine_similarity(f, w) for f, w in zip(found, wish, strict=True)]
    ).mean(0)


def _promising(
    lead: Lead, row: Tensor, wish: Sequence[Tensor], ids: Tensor, options: MMAOptions
) -> Tensor:
    """Places in the vocabulary of each place's best tokens by the gradient, shape (k, top)."""
    import torch
    from torch.nn.functional import normalize

    soft = [
        table[row.to(table.device)].detach()[None].clone().requires_grad_() for table in lead.tables
    ]
    loss = _distance(lead.pooled(row[None], soft), wish).sum()
    gradients = torch.autograd.grad(loss, soft)
    pairs = zip(gradients, lead.tables, strict=True)
    slopes = sum((g[0] @ table.detach()[ids.to(g.device)].T).cpu() for g, table in pairs)
    assert not isinstance(slopes, int)
    if options.compat:  # the authors' one-hot begins at the start token, one row too early
        slopes = slopes.roll(1, 0)
    return normalize(slopes, dim=-1).topk(min(options.top, len(ids)), largest=False).indices


def _readable(lead: Lead, rows: Tensor, written: object) -> Tensor:
    """Rows that are read as they are written."""
    import torch

    assert callable(written)
    kept = [row for row in rows.tolist() if lead.ids(written(row)) == row]
    return torch.tensor(kept, dtype=rows.dtype).reshape(-1, rows.shape[1])


ATTACK = Attack("mma", "text-encoder", MMAOptions, _run, reads="pooled")
