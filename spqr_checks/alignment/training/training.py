"""The optimisation loop that trained methods share."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from spqr_checks.alignment.request import Progress, Report
from spqr_checks.alignment.training.options import TrainingOptions
from spqr_checks.errors import UserError

_REPORT_EVERY = 20


def learning_rate_factor(step: int, options: TrainingOptions) -> float:
    """Linear warm-up over ``warmup`` steps, then constant or half a cosine down to zero.

    The half cosine is run through ``cycles`` times.
    """
    warmup = options.warmup or 0
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if options.schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, options.steps - warmup)
    progress = progress * options.cycles % 1.0 if progress < 1 else 1.0
    return 0.5 * (1 + math.cos(math.pi * progress))


def optimise(
    parameters: Iterable[nn.Parameter],
    batch_loss: Callable[[], Tensor],
    options: TrainingOptions,
    *,
    learning_rate: float,
    report: Report,
    adafactor: bool = False,
    weight_decay: float = 0.0,
    clip: float | None = None,
    stepped: Callable[[], None] = lambda: None,
) -> None:
    """Adam (0.9, 0.999) on the loss of each step; AdamW where weights decay.

    Args:
        batch_loss: asked once per step, or as often as gradients are accumulated.
        options: steps, accumulation, warm-up and schedule.
        adafactor: Adafactor in its place, without relative steps and scales.
        weight_decay: decoupled from the gradients (AdamW).
        clip: largest norm of all gradients together; not clipped if not given.
        stepped: called after each step.

    Raises:
        UserError: as soon as the loss, or at the end a parameter, is not finite.
    """
    trained = list(parameters)
    optimiser = _optimiser(trained, learning_rate, adafactor, weight_decay)
    device = trained[0].device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start, steps = time.monotonic(), options.steps
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * learning_rate_factor(step, options)
        optimiser.zero_grad(set_to_none=True)
        value = 0.0
        for _ in range(options.accumulation):
            loss = batch_loss() / options.accumulation
            value += loss.item()
            if not math.isfinite(value):
                raise _diverged(f"the loss is {value} in step {step + 1} of {steps}")
            loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(trained, clip)
        optimiser.step()
        stepped()
        done = step + 1
        if done % _REPORT_EVERY == 0 or done == steps or done == 1:
            speed = done / max(time.monotonic() - start, 1e-9)
            report(Progress(done, steps, value, speed, _peak_memory(device)))
    if not all(bool(p.isfinite().all()) for p in trained):
        raise _diverged("a trained parameter is not finite after the last step")


def _optimiser(
    trained: list[nn.Parameter], learning_rate: float, adafactor: bool, weight_decay: float
) -> torch.optim.Optimizer:
    if adafactor:
        from transformers.optimization import Adafactor

        fixed = {"scale_parameter": False, "relative_step": False, "clip_threshold": 1.0}
        chosen: torch.optim.Optimizer = Adafactor(
            trained, lr=learning_rate, weight_decay=weight_decay, **fixed
        )
        return chosen
    if weight_decay:
        return torch.optim.AdamW(trained, learning_rate, weight_decay=weight_decay)
    return torch.optim.Adam(trained, learning_rate)


def _diverged(what: str) -> UserError:
    return UserError(f"the alignment diverged: {what}; lower its learning_rate")


def _peak_memory(device: torch.device) -> int:
    """Bytes: the accelerator's, or the process's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
