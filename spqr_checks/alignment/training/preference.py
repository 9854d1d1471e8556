"""Diffusion-DPO: a denoiser learns to prefer one image of a pair over the other.

Wallace et al., "Diffusion Model Alignment Using Direct Preference Optimization" (CVPR 2024), as
AlignGuard trains it (Liu et al., arXiv 2412.10493, train.py). The reference model is the same
network with its adapter switched off, so there is no second copy of it.

Models of flow matching have the velocity's error in the place of the noise's: Flow-DPO (Liu et
al., "Improving Video Generation with Human Feedback", NeurIPS 2025, arXiv 2501.13918). Derived, it
has β_t = β (1 − t)², which makes it the error of the noise; its authors find that this invites
gaming the reward, and take a constant β, which is the default here. Stable Diffusion 3 was tuned
by DPO too (arXiv 2403.03206), without a formula of its own. Times are drawn as each family draws
them in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.options import PreferenceOptions
from spqr_checks.alignment.training.pair_images import Pairs
from spqr_checks.alignment.training.preservation import Kept
from spqr_checks.alignment.training.training import optimise
from spqr_checks.alignment.training.unet import ADAPTER, adapter_off, single_precision
from spqr_checks.alignment.training.views import View
from spqr_checks.generation.conditions import Conditions
from spqr_checks.hashing import Json
from spqr_checks.models import adapters, weights
from spqr_checks.models.weights import denoiser_of

_LAST = 100
"""Steps at the end of a training whose mean accuracy is put on record."""


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


class Preference:
    """DPO on a set of pairs, a fresh random batch per step.

    Both images of a pair get the same timestep and the same noise. Errors are means over an
    image's elements of the squared distance to the network's own target: noise, or the velocity
    of a network that predicts this (with denoising an extension of ours: the authors' code takes
    noise prediction only). At one x_t the errors differ by a factor known in advance, ε-error =
    ᾱ_t · v-error, or (1 − σ)² · v-error with flow matching; ``error="epsilon"`` puts it in, so that
    β means the same for all kinds.
    """

    def __init__(
        self,
        view: View,
        request: AlignmentRequest,
        pairs: Pairs,
        options: PreferenceOptions,
        *,
        beta: float | None = None,
        share: float = 1.0,
        focus: float = 0.0,
        weights: Tensor | None = None,
    ) -> None:
        """Takes what the loss needs; the adapter to be trained is on the pipeline's denoiser.

        Args:
            beta: β, how closely the reference is kept to; that of the options if not given.
            share: of the schedule, from its clean end, that times are drawn from.
            focus, weights: see ``preference_loss``; weights hold one value per pair.
        """
        self.view, self.request, self.options = view, request, options
        self.network: nn.Module = denoiser_of(view.pipe)
        self.pairs, self.batch, self.dropout = pairs, options.batch, options.caption_dropout
        self.beta = options.beta if beta is None else beta
        self.focus, self.weights = focus, weights
        self.share = share
        self.generator = torch.Generator("cpu").manual_seed(request.seed)
        self.unconditional = view.encode([""])
        texts = list(dict.fromkeys([*pairs.captions, *pairs.loser_captions]))
        place = {text: number for number, text in enumerate(texts)}
        self.captions = view.encode(texts)
        self.winner_caption = torch.tensor([place[text] for text in pairs.captions])
        self.loser_caption = torch.tensor([place[text] for text in pairs.loser_captions])
        self.accuracies: list[float] = []
        """Of each step so far: the share of its pairs whose margin was positive."""

    def loss(self) -> Tensor:
        """Loss of one fresh batch."""
        pick = torch.randint(0, len(self.pairs), (self.batch,), generator=self.generator)
        t = self.view.noiser.objective.times(self.batch, self.generator, self.share)
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
            t: time of each, shape (n,).
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
        noiser = self.view.noiser
        x = noiser.objective.noisy(latents, noise, t)
        predicted = self.view.predictor(self.network, x, t, captions)
        target = noiser.objective.target(latents, noise, t)
        errors: Tensor = (predicted - target).square().mean(dim=(1, 2, 3))
        return errors * noiser.factor(self.options.error, t)

    @property
    def accuracy(self) -> float:
        """Implicit accuracy at the end of a training: share of pairs with a positive margin."""
        last = self.accuracies[-_LAST:]
        return sum(last) / len(last)

    def train(
        self,
        kept: Kept | None,
        report: Report,
        *,
        targets: Sequence[str] | None = None,
        learning_rate: float | None = None,
        loss: Callable[[], Tensor] | None = None,
    ) -> None:
        """Attaches a fresh adapter, trains it and leaves it on the network, frozen.

        Args:
            kept: the preservation term, which starts from its first batch.
            targets: endings of the names of the layers to adapt; all attention if not given.
            learning_rate: that of the options, or 1e-5 · pairs of a step, if not given.
            loss: what is descended, if it is more than the pairs' loss.
        """
        options, network, own = self.options, self.network, loss or self.loss
        if kept is not None:
            kept.restart()
        alpha, seed = options.alpha or options.rank, self.request.seed
        optimise(
            adapters.add_lora(
                network, options.rank, alpha, targets or self.view.targets, seed, ADAPTER
            ),
            own if kept is None else lambda: own() + options.keep_weight * kept.loss(),
            options,
            learning_rate=learning_rate
            or options.learning_rate
            or 1e-5 * options.batch * options.accumulation,
            report=report,
            adafactor=options.optimiser == "adafactor",
            weight_decay=options.weight_decay,
            clip=options.clip,
        )
        network.requires_grad_(False)

    def align(self, out: Path, report: Report, **training: Any) -> None:
        """Trains one adapter and writes it, with its implicit accuracy on record.

        Args:
            training: arguments of ``train``.

        Raises:
            UserError: the training diverged; nothing is written then.
        """
        base_digest = weights.weights_digest(self.network)
        kept = Kept.asked(self.view, self.request, self.options)
        with single_precision(self.network):
            self.train(kept, report, **training)
            record: dict[str, Json] = {
                "base_digest": base_digest,
                "implicit_accuracy": self.accuracy,
            }
            adapters.save_adapter(self.view.pipe, out, ADAPTER, record)
