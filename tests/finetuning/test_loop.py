"""The training loop on a denoiser that shows what it was given."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spqr_checks.choices import Profile
from spqr_checks.finetuning.examples import Examples
from spqr_checks.finetuning.families.unet import UNetConditions
from spqr_checks.finetuning.loop import DivergedError, Loop
from spqr_checks.finetuning.schedule import Block


class Denoiser(nn.Module):
    """One trainable number; remembers its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> Any:
        self.seen.append((x.detach(), t, encoder_hidden_states))
        return SimpleNamespace(sample=self.weight * torch.ones_like(x))


class Identity:
    """No noise at all; the latents are the target."""

    prediction_type = "sample"

    def times(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, 1000, (n,), generator=generator)

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return latents

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return latents


def _examples(n: int) -> Examples:
    """Image i holds the number i, and so does its caption."""
    numbers = torch.arange(n).float()
    hidden = torch.cat([torch.tensor([-1.0]), numbers]).reshape(-1, 1, 1)
    latents = numbers.reshape(-1, 1, 1, 1).expand(n, 1, 2, 2).contiguous()
    return Examples(latents, torch.arange(1, n + 1), UNetConditions(hidden))


def _loop(denoiser: nn.Module, n: int = 10, seed: int = 0, **options: Any) -> Loop:
    extra = {key: options.pop(key) for key in ("report",) if key in options}
    profile = Profile(trains="denoiser", **({"batch": 4} | options))
    parameters = list(denoiser.parameters())
    objective: Any = Identity()
    return Loop(denoiser, parameters, _examples(n), objective, profile, seed=seed, steps=5, **extra)


def _images(denoiser: Denoiser) -> list[int]:
    return [int(i) for x, _, _ in denoiser.seen for i in x[:, 0, 0, 0]]


def test_each_pass_shows_every_image_of_the_block_once_in_another_order() -> None:
    denoiser = Denoiser()
    _loop(denoiser, n=30).run(Block(10, 20, 5))
    shown = _images(denoiser)
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10, 20))
    assert shown[:10] != shown[10:]
    assert all(len(x) == 4 for x, _, _ in denoiser.seen)


def test_a_batch_larger_than_the_block_is_filled_by_further_passes() -> None:
    denoiser = Denoiser()
    _loop(denoiser, n=3, batch=9).run(Block(0, 3, 1))
    assert Counter(_images(denoiser)) == {0: 3, 1: 3, 2: 3}


def test_each_image_comes_with_its_own_caption() -> None:
    denoiser = Denoiser()
    _loop(denoiser).run(Block(0, 10, 5))
    for x, _, hidden in denoiser.seen:
        assert torch.equal(x[:, 0, 0, 0], hidden[:, 0, 0])


def test_timesteps_are_spread_over_the_whole_schedule() -> None:
    denoiser = Denoiser()
    _loop(denoiser, batch=50).run(Block(0, 10, 20))
    t = torch.cat([t for _, t, _ in denoiser.seen])
    assert t.min() < 20
    assert t.max() >= 980
    assert t.max() < 1000


@pytest.mark.parametrize(("rate", "low", "high"), [(0, 0, 0), (0.25, 150, 350), (1, 1000, 1000)])
def test_captions_are_dropped_at_the_rate_asked_for(rate: float, low: int, high: int) -> None:
    denoiser = Denoiser()
    _loop(denoiser, batch=100, caption_dropout=rate).run(Block(0, 10, 10))
    dropped = sum(int((hidden == -1).sum()) for _, _, hidden in denoiser.seen)
    assert low <= dropped <= high


def test_dropping_captions_changes_no_other_random_number() -> None:
    kept, dropped = Denoiser(), Denoiser()
    _loop(kept).run(Block(0, 10, 3))
    _loop(dropped, caption_dropout=1.0).run(Block(0, 10, 3))
    for (x, t, _), (other_x, other_t, _) in zip(kept.seen, dropped.seen, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(t, other_t)


def test_the_seed_decides_and_the_global_generator_does_not() -> None:
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(runs))
        denoiser = Denoiser()
        loop = _loop(denoiser, seed=seed)
        loop.run(Block(0, 10, 5))
        runs.append((_images(denoiser), denoiser.weight.item(), loop.loss))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


def test_warm_up_rises_to_the_learning_rate_and_stays() -> None:
    denoiser = Denoiser()
    rates: list[float] = []
    loop = _loop(denoiser, learning_rate=0.4, warmup=3)
    loop.report = lambda *_: rates.append(loop._optimiser.param_groups[0]["lr"])
    loop.run(Block(0, 10, 6))
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_gradients_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = Denoiser()
    loop = _loop(denoiser, clip=0.5)
    norms: list[float] = []
    monkeypatch.setattr(
        loop._optimiser, "step", lambda: norms.append(float(denoiser.weight.grad.abs()))
    )
    loop.run(Block(0, 10, 3))
    assert norms == pytest.approx([0.5] * 3, abs=1e-5)


@pytest.mark.parametrize(("batch", "accumulation"), [(1, 12), (2, 6), (3, 4), (4, 3), (12, 1)])
def test_accumulated_batches_are_one_bigger_batch(batch: int, accumulation: int) -> None:
    whole, parts = Denoiser(), Denoiser()
    losses: list[list[float]] = []
    accumulated = {"batch": batch, "accumulation": accumulation}
    for denoiser, options in ((whole, {"batch": 12}), (parts, accumulated)):
        losses.append([])
        seen = losses[-1]
        report = lambda _, __, loss, seen=seen: seen.append(loss)  # noqa: E731
        _loop(denoiser, report=report, **options).run(Block(0, 10, 3))
    assert losses[0] == pytest.approx(losses[1])
    assert whole.weight.item() == pytest.approx(parts.weight.item())
    assert [len(x) for x, _, _ in parts.seen] == [batch] * (3 * accumulation)
    assert sorted(_images(parts)) == sorted(_images(whole))


def test_progress_is_reported_after_each_step() -> None:
    reports: list[tuple[int, int, float]] = []
    loop = _loop(Denoiser(), report=lambda *report: reports.append(report))
    loop.run(Block(0, 10, 2))
    loop.run(Block(0, 10, 3))
    assert [report[:2] for report in reports] == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert loop.loss == pytest.approx(sum(report[2] for report in reports) / 5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training_at_once(value: float) -> None:
    denoiser = Denoiser()
    loop = _loop(denoiser, n=1)
    loop.examples.latents.fill_(value)
    with pytest.raises(DivergedError, match=r"the loss is not finite in step 1 of 5.*below 0.0001"):
        loop.run(Block(0, 1, 3))
    assert denoiser.weight.item() == 1
    assert len(denoiser.seen) == 1


def test_a_gradient_that_is_not_finite_ends_the_training_before_the_update() -> None:
    denoiser = Denoiser()
    denoiser.weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(DivergedError, match="a gradient"):
        _loop(denoiser).run(Block(0, 10, 3))
    assert denoiser.weight.item() == 1


def test_a_last_update_that_overflows_is_noticed() -> None:
    denoiser = Denoiser()
    # weight decay: 1 - rate · decay
    loop = _loop(denoiser, learning_rate=1e38, weight_decay=1e38)
    with pytest.raises(DivergedError, match="a weight"):
        loop.run(Block(0, 10, 1))
