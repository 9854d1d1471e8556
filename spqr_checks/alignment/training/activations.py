"""Which expert acts most strongly on each unit of a layer, counted over calibration inputs.

All experts see the same inputs, those of the base model's layers: one pass serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.low_rank import Lora
from spqr_checks.alignment.training.views import View
from spqr_checks.hashing import digest
from spqr_checks.models.weights import denoiser_of

Statistic = Literal["vote", "mean"]


class Tally:
    """For every unit of a layer: how often each expert's signal was the largest, and its mean."""

    def __init__(self, experts: int, units: int) -> None:
        self.votes = torch.zeros(experts, units, dtype=torch.int64)
        self.sums = torch.zeros(experts, units, dtype=torch.float64)

    def add(self, signal: Tensor) -> None:
        """Counts signals ≥ 0 of shape (experts, inputs, units).

        Among equals the first expert gets the vote; where all are silent nobody does.
        """
        signal = signal.detach().to("cpu", torch.float64)
        best, first = signal.max(dim=0).values, signal.argmax(dim=0)
        for expert in range(len(signal)):
            self.votes[expert] += ((first == expert) & (best > 0)).sum(dim=0)
        self.sums += signal.sum(dim=1)

    def winners(self, statistic: Statistic) -> Tensor:
        """The winning expert of each unit, shape (units,).

        By ``vote`` the most votes, then the larger mean signal, then the lower index; by ``mean``
        the larger mean signal, then the lower index.
        """
        sums = self.sums
        if statistic == "vote":
            most = self.votes == self.votes.max(dim=0).values
            sums = sums.masked_fill(~most, -1.0)
        return sums.argmax(dim=0)


@dataclass(frozen=True)
class Signals:
    """The tallies of one layer.

    Attributes:
        rows: output units j; the signal of expert k is |s B_k A_k x|_j, mean over tokens.
        hidden: hidden units i; |A_k x|_i, mean over tokens. Silent where the expert does nothing.
        matrix: the layer as one unit; the mean of ``rows``.
    """

    rows: Tally
    hidden: Tally
    matrix: Tally


class Meter:
    """Tallies of every layer that the experts act on."""

    def __init__(self, experts: Sequence[Lora]) -> None:
        self.experts = experts
        k, rank = len(experts), experts[0].rank
        self.layers = {
            layer: Signals(Tally(k, len(b)), Tally(k, rank), Tally(k, 1))
            for layer, (_, b) in experts[0].factors.items()
        }

    def measure(self, layer: str, x: Tensor) -> None:
        """Counts one batch of a layer's inputs, shape (inputs, tokens, in); each has a vote."""
        x = x.detach().float()
        rows, hidden = [], []
        for expert in self.experts:
            a, b = (factor.to(x.device) for factor in expert.factors[layer])
            inner = x @ a.T
            outer = expert.scale * (inner @ b.T)
            acts = bool((b.any(dim=0) & a.any(dim=1)).any())
            rows.append(outer.abs().mean(dim=1))
            hidden.append(inner.abs().mean(dim=1) * acts)
        signals = self.layers[layer]
        signals.rows.add(torch.stack(rows))
        signals.hidden.add(torch.stack(hidden))
        signals.matrix.add(torch.stack(rows).mean(dim=2, keepdim=True))


def calibration_prompts(request: AlignmentRequest, per_category: int) -> list[str]:
    """Harmful prompts, the same number of each category (or all that there are), at random."""
    generator = torch.Generator().manual_seed(request.seed)
    chosen: list[str] = []
    for category in dict.fromkeys(request.categories):
        both = zip(request.harmful, request.categories, strict=True)
        texts = [text for text, its in both if its == category]
        order = torch.randperm(len(texts), generator=generator).tolist()
        chosen += [texts[i] for i in order[:per_category]]
    return chosen


def even_timesteps(total: int, n: int) -> list[int]:
    """``n`` places of ``total``: the middles of as many equal parts."""
    return [min(total - 1, int((2 * i + 1) * total / (2 * n))) for i in range(n)]


@torch.no_grad()
def watch_inputs(
    view: View,
    request: AlignmentRequest,
    prompts: Sequence[str],
    layers: Iterable[str],
    see: Callable[[str, Tensor], None],
    timesteps: int,
) -> None:
    """Shows what layers of the denoiser are given: their names and inputs, (images, tokens, in).

    The pipeline's own images of the prompts, drawn with one seed per prompt, are noised to times
    at evenly spaced places of the schedule, and its denoiser is called once for each.
    """
    seeds = [int(digest(["calibration", text, request.seed])[:16], 16) >> 1 for text in prompts]
    latents = view.draw_seeded(prompts, seeds, request.sampler)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    objective, captions = view.noiser.objective, view.encode(prompts)
    network, schedule = denoiser_of(view.pipe), objective.schedule

    def watch(layer: str) -> Any:
        return lambda _module, inputs: see(layer, inputs[0])

    with ExitStack() as hooks:
        for layer in layers:
            hook = network.get_submodule(layer).register_forward_pre_hook(watch(layer))
            hooks.callback(hook.remove)
        for start in range(0, len(prompts), request.sampler.batch):
            block = slice(start, start + request.sampler.batch)
            clean = latents[block]
            for place in even_timesteps(len(schedule), timesteps):
                noise = [torch.randn(clean.shape[1:], generator=g) for g in generators[block]]
                t = schedule[place].repeat(len(clean)).to(clean.device)
                x = objective.noisy(clean, torch.stack(noise).to(clean.device), t)
                view.predictor(network, x, t, captions[block])


def measure(
    view: View,
    request: AlignmentRequest,
    experts: Sequence[Lora],
    *,
    prompts_per_category: int,
    timesteps: int,
) -> Mapping[str, Signals]:
    """The experts' signals on what the layers of the base model are given.

    No adapter is attached. The paper gives neither prompts nor timesteps; both are our
    reconstruction.
    """
    prompts, meter = calibration_prompts(request, prompts_per_category), Meter(experts)
    watch_inputs(view, request, prompts, meter.layers, meter.measure, timesteps)
    return meter.layers
