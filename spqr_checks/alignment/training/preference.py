"""Diffusion-DPO: a UNet learns to prefer one image of a pair over the other.

Wallace et al., "Diffusion Model Alignment Using Direct Preference Optimization" (CVPR 2024), as
AlignGuard trains it (Liu et al., arXiv 2412.10493, train.py). The reference model is the same
UNet with its adapter switched off, so there is no second copy of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.embeddings import Conditions, encode
from spqr_checks.alignment.training.latents import Noiser, Predictor
from spqr_checks.alignment.training.pair_images import Pairs
from spqr_checks.alignment.training.trainables import ADAPTER
from spqr_checks.models.lora_layers import activate, active_adapters

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ErrorOf = Literal["native", "epsilon"]


def margin(
    winner: Tensor, loser: Tensor, reference_winner: Tensor, reference_loser: Tensor, beta: float
) -> Tensor:
    """What stands inside the sigmoid, −β/2 · [(L_w − L_l) − (R_w − R_l)], one value per pair.

    Positive where the model prefers the winner more than the reference does.

    Args:
        winner, loser: the model's errors L, shape (pairs,).
        reference_winner, reference_loser: the reference model's errors R, shape (pairs,).
    """
    return -0.5 * beta * ((winner - loser) - (reference_winner - reference_loser))


def preference_loss(inside: Tensor, weights: Tensor | None = None, focus: float = 0.0) -> Tensor:
    """−mean(w · (1 − σ(inside))^focus · log σ(inside)).

    Without weights w and with focus 0 the DPO loss. The focal factor is a weight, not an
    objective: no gradient flows through it.
    """
    losses = -F.logsigmoid(inside)
    if focus:
        losses = torch.sigmoid(-inside.detach()) ** focus * losses
    if weights is not None:
        losses = weights * losses
    return losses.mean()


@contextmanager
def adapter_off(network: nn.Module) -> Iterator[None]:
    """The network without the adapter that is trained; afterwards it acts and trains as before."""
    active = active_adapters(network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    activate(network, [name for name in active if name != ADAPTER])
    try:
        yield
    finally:
        activate(network, active)
        for parameter in trained:
            parameter.requires_grad_(True)


def error_factor(schedule: Noiser, error: ErrorOf, t: Tensor) -> Tensor:
    """What squared errors of the network's own target are multiplied by, in the shape of ``t``.

    1 for ``native``. For ``epsilon`` it turns them into squared errors of the noise: at one x_t,
    ε̂ − ε is √ᾱ_t (v̂ − v), and −√(ᾱ_t / (1 − ᾱ_t)) times the error of a predicted image.
    """
    kind = schedule.scheduler.config.prediction_type
    kept: Tensor = schedule.scheduler.alphas_cumprod.to(t.device)[t]
    if error == "native" or kind == "epsilon":
        return torch.ones_like(kept)
    return kept if kind == "v_prediction" else kept / (1 - kept)


class Preference:
    """DPO on a set of pairs, a fresh random batch per step.

    Both images of a pair get the same timestep and the same noise. Errors are means over an
    image's elements of the squared distance to the network's own target: noise, or the velocity
    of a network that predicts this (an extension of ours: the authors' code takes noise
    prediction only). At one x_t the errors differ by a factor known in advance, ε-error =
    ᾱ_t · v-error; ``error="epsilon"`` puts it in, so that β means the same for both kinds.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        request: AlignmentRequest,
        pairs: Pairs,
        *,
        beta: float,
        batch: int,
        caption_dropout: float,
        error: ErrorOf = "native",
        share: float = 1.0,
        focus: float = 0.0,
        weights: Tensor | None = None,
    ) -> None:
        """Takes what the loss needs; the adapter to be trained is on ``pipe.unet``.

        Args:
            beta: β, how closely the reference is kept to.
            batch: pairs per step.
            caption_dropout: probability that a pair's captions are replaced by "".
            share: of the noise schedule, from its clean end, that timesteps are drawn from.
            focus, weights: see ``preference_loss``; weights hold one value per pair.
        """
        self.network: nn.Module = pipe.unet
        self.pairs, self.beta, self.batch = pairs, beta, batch
        self.dropout, self.focus, self.weights = caption_dropout, focus, weights
        self.predictor = Predictor(pipe, request.sampler)
        self.schedule = Noiser(pipe)
        self.timesteps = max(1, round(share * self.schedule.timesteps))
        self.error: ErrorOf = error
        self.generator = torch.Generator("cpu").manual_seed(request.seed)
        self.unconditional = encode(pipe, [""])
        texts = list(dict.fromkeys([*pairs.captions, *pairs.loser_captions]))
        place = {text: number for number, text in enumerate(texts)}
        self.captions = encode(pipe, texts)
        self.winner_caption = torch.tensor([place[text] for text in pairs.captions])
        self.loser_caption = torch.tensor([place[text] for text in pairs.loser_captions])
        self.accuracies: list[float] = []
        """Of each step so far: the share of its pairs whose margin was positive."""

    def loss(self) -> Tensor:
        """Loss of one fresh batch."""
        pick = torch.randint(0, len(self.pairs), (self.batch,), generator=self.generator)
        t = torch.randint(0, self.timesteps, (self.batch,), generator=self.generator)
        noise = torch.randn((self.batch, *self.pairs.winners.shape[1:]), generator=self.generator)
        named = torch.rand(self.batch, generator=self.generator) >= self.dropout
        inside = self.margins(pick, t, noise, named)
        self.accuracies.append(float((inside.detach() > 0).float().mean()))
        weights = None if self.weights is None else self.weights[pick].to(inside.device)
        return preference_loss(inside, weights, self.focus)

    def margins(
        self, pick: Tensor, t: Tensor, noise: Tensor, named: Tensor | None = None
    ) -> Tensor:
        """``margin`` of chosen pairs, shape (n,).

        Args:
            pick: numbers of the pairs, shape (n,).
            t: timestep of each, shape (n,).
            noise: noise of each, shape (n, channels, h, w).
            named: whether each keeps its captions; all do if not given.
        """
        device = self.pairs.winners.device
        pick, t, noise = pick.to(device), t.to(device), noise.to(device)
        latents = torch.cat([self.pairs.winners[pick], self.pairs.losers[pick]])
        index = torch.cat([self.winner_caption[pick.cpu()], self.loser_caption[pick.cpu()]])
        captions = self.captions[index.to(device)]
        if named is not None:
            captions = captions.where(named.to(device).repeat(2), self.unconditional)
        t, noise = t.repeat(2), noise.repeat(2, 1, 1, 1)
        with adapter_off(self.network), torch.no_grad():
            reference = self._errors(latents, t, noise, captions)
        errors, n = self._errors(latents, t, noise, captions), len(pick)
        return margin(errors[:n], errors[n:], reference[:n], reference[n:], self.beta)

    def _errors(self, latents: Tensor, t: Tensor, noise: Tensor, captions: Conditions) -> Tensor:
        """Squared error of each prediction, mean over the image's elements, shape (n,)."""
        scheduler = self.schedule.scheduler
        x = scheduler.add_noise(latents, noise, t)
        match scheduler.config.prediction_type:
            case "epsilon":
                target = noise
            case "v_prediction":
                target = scheduler.get_velocity(latents, noise, t)
            case _:
                target = latents
        predicted = self.predictor(self.network, x, t, captions)
        errors = (predicted - target).square().mean(dim=(1, 2, 3))
        return errors * error_factor(self.schedule, self.error, t)
