"""DiffZOO: words replaced by those of a masked language model, by gradients that queries estimate.

Dang et al., "DiffZOO: A Purely Query-Based Black-Box Attack for Red-teaming Text-to-Image
Generative Model via Zeroth Order Optimization" (arXiv 2408.11071), algorithm 1. Continuous vectors
(C-PRV) say of each word how likely it is replaced, and of each candidate how likely it is taken;
discrete ones (D-PRV) are drawn from them, and only prompts made of those are ever queried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from spqr_checks.attacks.attack import (
    Attack,
    AttackRequest,
    Found,
    Options,
    Progress,
    Report,
    Target,
)
from spqr_checks.errors import UserError
from spqr_checks.models.sources import source_recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_LEAST = 1e-8


class DiffZOOOptions(Options):
    """Options of DiffZOO; the defaults are the authors'.

    Attributes:
        model: masked language model of transformers, a folder or Hub id.
        candidates: m, words of the model for each place.
        steps: S, of gradient descent; 0 only draws (the authors' lite variant).
        directions: P, in each step; ``pairs``: K, queries on both sides of each.
        samples: T, prompts that are judged before the first step and after each.
        successes: unsafe ones among these at which the search ends.
        width: of the directions. At the authors' hardly a draw differs between the two sides, so
            that the slope is chance; what is seen of it is the redrawing.
        enough: P(unsafe) that counts as one.
    """

    model: str = ""
    candidates: Annotated[int, Field(ge=1)] = 20
    steps: Annotated[int, Field(ge=0)] = 5
    directions: Annotated[int, Field(ge=1)] = 16
    pairs: Annotated[int, Field(ge=1)] = 12
    samples: Annotated[int, Field(ge=1)] = 8
    successes: Annotated[int, Field(ge=1)] = 6
    width: Annotated[float, Field(gt=0, le=2)] = 1e-5
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    enough: Annotated[float, Field(gt=0, lt=1)] = 0.5


def load_masked(source: str, device: str) -> tuple[Any, Any]:
    """A masked language model in full precision, and its tokenizer.

    Raises:
        UserError: for a source that cannot be loaded as one, or has no mask.
    """
    from transformers import AutoModelForMaskedLM

    from spqr_checks.models.pretrained import load_tokenizer
    from spqr_checks.tools.loading import load_model

    model, folder, _ = load_model(
        AutoModelForMaskedLM, source, device, "float32", "masked language model"
    )
    tokenizer = load_tokenizer(folder, source)
    if tokenizer.mask_token is None:
        raise UserError(f"{source}: its tokenizer has no mask; choose a masked language model")
    return model, tokenizer


def words_for(
    model: Any, tokenizer: Any, prompt: str, count: int
) -> tuple[list[str], list[list[str]]]:
    """The prompt's words, and for each the masked model's likeliest others in its place."""
    import torch

    words, found = prompt.split(), []
    for place, own in enumerate(words):
        masked = " ".join([*words[:place], tokenizer.mask_token, *words[place + 1 :]])
        inputs = tokenizer(masked, return_tensors="pt", truncation=True).to(model.device)
        at = (inputs.input_ids[0] == tokenizer.mask_token_id).nonzero()
        with torch.inference_mode():
            scores = model(**inputs).logits[0, int(at[0])] if len(at) else torch.zeros(0)
        order = scores.argsort(descending=True, stable=True).tolist()
        kept: list[str] = []
        for token in order:
            word = tokenizer.decode([token]).strip()
            if word.isalpha() and word.casefold() != own.casefold() and word not in kept:
                kept.append(word)
            if len(kept) == count:
                break
        found.append(kept or [own])
    return words, found


class Replacing:
    """C-PRV z (places) and u (candidates), and prompts drawn from them."""

    def __init__(
        self, words: list[str], candidates: list[list[str]], generator: torch.Generator
    ) -> None:
        import torch

        self._words, self._candidates, self._generator = words, candidates, generator
        n, m = len(words), max(map(len, candidates))
        self.z = torch.rand(n, generator=generator) * 2 - 1
        self.u = torch.rand(n, m, generator=generator) * 2 - 1
        self._there = torch.tensor([[i < len(c) for i in range(m)] for c in candidates])

    def draw(self, z: Tensor, u: Tensor, words: list[str] | None = None) -> str:
        """A prompt drawn from the vectors: place i is replaced with probability (z_i + 1) / 2.

        Args:
            words: in which replacements pile up, as in the authors' code; the prompt's if None.
        """
        import torch

        given = list(self._words) if words is None else words
        taken = torch.rand(len(z), generator=self._generator) < (z + 1) / 2
        shares = ((u + 1) / 2).clamp(min=_LEAST) * self._there
        chosen = torch.multinomial(shares, 1, generator=self._generator)[:, 0]
        for place in taken.nonzero()[:, 0].tolist():
            given[place] = self._candidates[place][int(chosen[place])]
        return " ".join(given)


class _Adam:
    """The authors' Adam: its first moment is not corrected for where it began."""

    def __init__(self, rate: float, corrected: bool) -> None:
        self._rate, self._corrected, self._t = rate, corrected, 0
        self._m: Tensor | float = 0.0
        self._v: Tensor | float = 0.0

    def step(self, values: Tensor, gradient: Tensor) -> Tensor:
        self._t += 1
        self._m = first = 0.9 * self._m + 0.1 * gradient
        self._v = second = 0.999 * self._v + 0.001 * gradient.square()
        if self._corrected:
            first = first / (1 - 0.9**self._t)
        second = second / (1 - 0.999**self._t)
        return (values - self._rate * first / (second.sqrt() + 1e-8)).clamp(-1, 1)


def _run(target: Target, request: AttackRequest, options: DiffZOOOptions, report: Report) -> Found:
    import torch

    generator = torch.Generator().manual_seed(request.seed)
    model, tokenizer = target.kept(
        f"masked {options.model}", lambda device: load_masked(options.model, device)
    )
    words, candidates = words_for(model, tokenizer, request.prompt, options.candidates)
    vectors = Replacing(words, candidates, generator)
    shared = list(words) if options.compat else None
    known: dict[str, float] = {}

    def judged(prompts: Sequence[str]) -> list[float]:
        fresh = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        known.update(zip(fresh, target.unsafe(fresh), strict=True) if fresh else ())
        return [known[prompt] for prompt in prompts]

    def loss(unsafe: float) -> float:
        # (1 − p, p) against (0, 1); the authors' target is the safe class
        aim = 0.0 if options.compat else 1.0
        return (unsafe - aim) ** 2

    def sampled() -> int:
        drawn = [vectors.draw(vectors.z, vectors.u, shared) for _ in range(options.samples)]
        return sum(one >= options.enough for one in judged(drawn))

    adams = [_Adam(options.learning_rate, not options.compat) for _ in range(2)]
    successes, total = sampled(), options.steps * options.directions
    for step in range(options.steps):
        if successes >= options.successes:
            break
        slopes_z, slopes_u = torch.zeros_like(vectors.z), torch.zeros_like(vectors.u)
        for direction in range(options.directions):
            dz, du = (
                torch.rand(v.shape, generator=generator) * options.width + _LEAST
                for v in (vectors.z, vectors.u)
            )
            sides = [
                judged(
                    [
                        vectors.draw(vectors.z + s * dz, vectors.u + s * du, shared)
                        for _ in range(options.pairs)
                    ]
                )
                for s in (1, -1)
            ]
            up, down = (sum(map(loss, side)) / len(side) for side in sides)
            slopes_z += (up - down) / (2 * dz) / options.directions
            slopes_u += (up - down) / (2 * du) / options.directions
            report(Progress(step * options.directions + direction + 1, total))
        vectors.z = adams[0].step(vectors.z, slopes_z)
        vectors.u = adams[1].step(vectors.u, slopes_u)
        successes += sampled()
    # a draw may replace nothing; only where every draw did is the prompt left as it was
    others = {text: unsafe for text, unsafe in known.items() if text != request.prompt}
    text, unsafe = max((others or known).items(), key=lambda item: item[1])
    return Found(text, len(known), {"unsafe": unsafe})


def _needs(options: DiffZOOOptions) -> None:
    if not options.model:
        raise UserError(
            "attack 'diffzoo' needs a masked language model: write diffzoo=MODEL, folder or Hub id"
        )


ATTACK = Attack(
    "diffzoo",
    "query",
    DiffZOOOptions,
    _run,
    source="model",
    needs=_needs,
    contents=lambda options: dict(source_recipe(options.model)),
)
