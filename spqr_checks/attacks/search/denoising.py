"""How well the denoiser under attack, told a prompt, finds the original's image in noise.

The losses of UnlearnDiffAtk and P4D: gradients go through the denoiser and the text encoders to
the embeddings of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spqr_checks.attacks.attack import AttackRequest, Target
from spqr_checks.attacks.search.encoders import Lead, conditions, encoded
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.examples import encode
from spqr_checks.finetuning.families.registry import family_of
from spqr_checks.models.weights import denoiser_of

_TOGETHER = 16
"""Noised latents about which a denoiser is asked at once."""


class Denoising:
    """Noised latents of what the original draws from the unattacked prompt.

    Args:
        images: how many the original draws; each step takes all of them.
    """

    def __init__(
        self, target: Target, lead: Lead, request: AttackRequest, images: int,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        drawn = target.draw(target.original, request.prompt, images)
        named = CaptionedImages(drawn, [request.prompt] * images)
        self._latents = encode(target.original, named).latents
        self._objective = family_of(target.pipe).objective(target.pipe)
        self.timesteps = int(target.pipe.scheduler.config.num_train_timesteps)
        self._target, self._lead, self._generator = target, lead, generator
        with torch.no_grad():
            self._wish = encoded(target.original, [request.prompt])

    def noised(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Latents at a time with fresh noise, and what a perfect prediction would be."""
        noise = torch.randn(self._latents.shape, generator=self._generator)
        times = t.expand(len(self._latents))
        made = self._objective.noisy(self._latents, noise, times)
        return made.to(self._lead.device), self._objective.target(self._latents, noise, times)

    def predicted(self, noisy: Tensor, t: Tensor, states: Sequence[Tensor]) -> Tensor:
        """The denoiser under attack, told these states; float32, on the CPU's or its device."""
        return self._said(self._target.pipe, noisy, t, states)

    @torch.no_grad()
    def ahead(self, steps: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of coming steps each a random time, noised latents, and what the original says of them.

        The original is told the unattacked prompt. It depends on nothing that a step finds, so
        that it is asked about several at once, which takes less time.
        """
        n = len(self._latents)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for start in range(0, steps, together := max(1, _TOGETHER // n)):
            drawn: list[tuple[Tensor, Tensor]] = []
            for _ in range(min(together, steps - start)):
                t = torch.randint(self.timesteps, (1,), generator=self._generator)
                drawn.append((t, self.noised(t)[0]))
            noisy = torch.cat([latents for _, latents in drawn])
            times = torch.cat([t.expand(n) for t, _ in drawn])
            wishes = self._said(self._target.original, noisy, times, self._wish).split(n)
            found += [(*one, wish) for one, wish in zip(drawn, wishes, strict=True)]
        return found

    def _said(self, pipe: object, noisy: Tensor, t: Tensor, states: Sequence[Tensor]) -> Tensor:
        denoiser = denoiser_of(pipe)
        weight = next(denoiser.parameters())
        times = t.expand(len(noisy)).to(noisy.device)
        rows = torch.zeros(len(noisy), dtype=torch.long, device=states[0].device)
        return conditions(pipe, states).predict(denoiser, noisy.to(weight), times, rows).float()


class Best:
    """The prompt from which the state under attack draws what the judge flags most.

    Args:
        images: of each prompt that the judge looks at; with seeds of the attack's own.
        enough: mean P(unsafe) at which a search may end.
    """

    def __init__(self, target: Target, images: int, enough: float) -> None:
        self._target, self._images, self._enough = target, images, enough
        self._known: dict[str, float] = {}

    def try_(self, prompt: str) -> bool:
        """Judges a prompt; True if that is enough."""
        if prompt not in self._known:
            (self._known[prompt],) = self._target.unsafe([prompt], self._images)
        return self._known[prompt] >= self._enough

    @property
    def found(self) -> tuple[str, float]:
        """The first of the best prompts, with its mean P(unsafe)."""
        return max(self._known.items(), key=lambda item: item[1])
