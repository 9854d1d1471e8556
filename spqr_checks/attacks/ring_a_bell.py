"""Ring-A-Bell: tokens whose embedding lies where the prompt's would with more of the concept.

Tsai et al., "Ring-A-Bell! How Reliable are Concept Removal Methods for Diffusion Models?" (ICLR
2024, arXiv 2310.10012), equations 1 to 3: a concept vector from pairs of prompts with and without
the concept, a target beside the prompt, and a genetic search on the text encoder for tokens that
come close to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

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
    import torch
    from torch import Tensor

    from spqr_checks.attacks.search.encoders import Lead
    from spqr_checks.attacks.search.vocabulary import Vocabulary


class RingABellOptions(Options):
    """Options of Ring-A-Bell; the defaults are the authors'.

    Attributes:
        tokens: K, the length of the row that is searched for: 16, 38 or 77, at most what fits
            (75, between CLIP's first and last token).
        eta: how far the target lies from the prompt, in concept vectors.
        population: rows in each generation, of which the better half are parents.
        start: ``random`` rows, or rows that are the ``prompt`` but for half of their tokens.
        patience: generations without a better row after which the search ends; None: none.
    """

    tokens: Annotated[int, Field(ge=1, le=77)] = 16
    eta: Annotated[float, Field(ge=0)] = 3.0
    population: Annotated[int, Field(ge=4)] = 200
    generations: Annotated[int, Field(ge=1)] = 3000
    crossover: Annotated[float, Field(ge=0, le=1)] = 0.5
    mutation: Annotated[float, Field(ge=0, le=1)] = 0.25
    start: Literal["random", "prompt"] = "random"
    patience: Annotated[int, Field(ge=1)] | None = 250


class Genetic:
    """A genetic search for the row of tokens whose states are nearest to a target.

    The sound form keeps parents as they are and so never loses the best row; ``compat`` repeats
    the authors' code, which mutates parents as well.
    """

    def __init__(
        self, lead: Lead, vocabulary: Vocabulary, target: Tensor, options: RingABellOptions
    ) -> None:
        self._lead, self._vocabulary, self._target, self._options = (
            lead,
            vocabulary,
            target,
            options,
        )
        self.evaluations = 0

    def search(
        self, rows: Tensor, generator: torch.Generator, report: Report
    ) -> tuple[Tensor, float]:
        """The best row and its loss (the squared distance to the target).

        Args:
            rows: the first generation, shape (population, tokens).
        """
        import torch

        options, keep = self._options, len(rows) // 2
        losses = self._losses(rows)
        best, since = float(losses.min()), 0
        for generation in range(1, options.generations):
            order = losses.argsort(stable=True)[:keep]
            rows, losses = rows[order], losses[order]
            children = self._children(rows, generator)
            if options.compat:
                rows = self._mutated(torch.cat([rows, children]), generator)
                losses = self._losses(rows)
            else:
                children = self._mutated(children, generator)
                losses = torch.cat([losses, self._losses(children)])
                rows = torch.cat([rows, children])
            report(Progress(generation, options.generations - 1))
            since = since + 1 if float(losses.min()) >= best else 0
            best = min(best, float(losses.min()))
            if options.patience is not None and since >= options.patience:
                break
        place = int(losses.argmin())
        return rows[place], float(losses[place])

    def _losses(self, rows: Tensor) -> Tensor:
        import torch

        texts = [""] * len(rows)
        if len(self._lead.networks) < sum(
            n.startswith("text_encoder") for n in self._lead.pipe.components
        ):
            texts = [self._vocabulary.text(row) for row in rows.tolist()]
        self.evaluations += len(rows)
        with torch.no_grad():
            states = self._lead.encode(rows, texts)[0]
            losses = (states - self._target).square().sum((1, 2)).float().cpu()
        finite(float(losses.sum()), "ring-a-bell")
        return losses

    def _children(self, parents: Tensor, generator: torch.Generator) -> Tensor:
        """Both children of a one-point crossover of some parents with random others.

        Where fewer cross than there are places, the others are copies, to be mutated.
        """
        import torch

        n, k = parents.shape
        crossing = torch.rand(n, generator=generator) < self._options.crossover
        others = torch.randint(n, (n,), generator=generator)
        cuts = torch.randint(1, k + 1, (n, 1), generator=generator)
        head = torch.arange(k)[None, :] < cuts
        first = torch.where(head, parents, parents[others])[crossing]
        second = torch.where(head, parents[others], parents)[crossing]
        both = torch.stack([first, second], 1).reshape(-1, k)
        if self._options.compat:
            return both
        return torch.cat([both, parents[~crossing]])[:n]

    def _mutated(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Some rows with one random token at a random place."""
        import torch

        n, k = rows.shape
        changed = torch.rand(n, generator=generator) < self._options.mutation
        places = torch.randint(k, (n,), generator=generator)
        tokens = self._vocabulary.draw((n,), generator)
        there = torch.arange(k)[None, :] == places[:, None]
        return torch.where(changed[:, None] & there, tokens[:, None], rows)


def _first(
    lead: Lead, vocabulary: Vocabulary, prompt: str, options: RingABellOptions,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    import torch

    k = min(options.tokens, lead.most)
    rows = vocabulary.draw((options.population, k), generator)
    if options.start == "random":
        return rows
    ids = [token for token in lead.ids(prompt) if token in set(vocabulary.ids.tolist())][:k]
    kept = torch.rand((len(rows), len(ids)), generator=generator) < 0.5
    rows[:, : len(ids)] = torch.where(
        kept, torch.tensor(ids, dtype=rows.dtype), rows[:, : len(ids)]
    )
    return rows


def _run(
    target: Target, request: AttackRequest, options: RingABellOptions, report: Report
) -> Found:
    import torch

    from spqr_checks.attacks.search.concept import concept_vectors
    from spqr_checks.attacks.search.encoders import Lead, encoded
    from spqr_checks.attacks.search.vocabulary import Vocabulary

    lead = Lead(target.pipe, "tokens", "ring-a-bell")
    vocabulary = Vocabulary(lead.tokenizer, options.compat)
    generator = torch.Generator().manual_seed(request.seed)
    with torch.no_grad():
        wish = encoded(lead.pipe, [request.prompt])[0][0]
    goal = wish + options.eta * concept_vectors(lead.pipe, request.concept)[0]
    genetic = Genetic(lead, vocabulary, goal, options)
    first = _first(lead, vocabulary, request.prompt, options, generator)
    row, loss = genetic.search(first, generator, report)
    return Found(vocabulary.text(row.tolist()), genetic.evaluations, {"loss": loss})


ATTACK = Attack("ring-a-bell", "text-encoder", RingABellOptions, _run, reads="tokens")
