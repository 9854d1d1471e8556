"""What every training stage works with: rendered images, and steps that report themselves."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from spqr_checks.miniature.renderer import render_all
from spqr_checks.miniature.scene import Scene, any_scene

_REPORT_EVERY = 10.0


@dataclass(frozen=True)
class Pool:
    """Images, uint8, shape (n, 3, 32, 32), and the scene of each."""

    images: torch.Tensor
    scenes: list[Scene]

    def __len__(self) -> int:
        return len(self.scenes)

    def signed(self, index: torch.Tensor) -> torch.Tensor:
        """Selected images as floats in [-1, 1]."""
        return self.images[index].float() / 127.5 - 1

    @classmethod
    def rendered(cls, n: int, seed: int, styles: Sequence[str]) -> Pool:
        rng = random.Random(seed)
        scenes = [any_scene(rng, styles) for _ in range(n)]
        pixels = torch.from_numpy(render_all(scenes, rng))
        return cls(pixels.permute(0, 3, 1, 2).contiguous(), scenes)


class Stage:
    """Iterates over the steps of one stage; `learn` does each, and a line now and then says so.

    Args:
        rate: learning rate of a step.
        clip: largest norm of the gradient.
    """

    def __init__(
        self,
        name: str,
        optimiser: torch.optim.Optimizer,
        steps: int,
        batch: int,
        *,
        rate: Callable[[int], float],
        clip: float | None = None,
    ) -> None:
        self._name, self._optimiser, self._steps, self._batch = name, optimiser, steps, batch
        self._rate, self._clip = rate, clip
        self._losses: list[float] = []

    def __iter__(self) -> Iterator[int]:
        start = last = time.monotonic()
        for step in range(self._steps):
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate(step)
            yield step
            now = time.monotonic()
            if now - last >= _REPORT_EVERY or step + 1 == self._steps:
                last = now
                self._report(step + 1, now - start)

    def learn(self, loss: torch.Tensor, shown: torch.Tensor | None = None) -> None:
        """One step of the optimiser; ``shown`` is the loss that is reported instead."""
        self._optimiser.zero_grad()
        loss.backward()
        if self._clip is not None:
            parameters = [p for group in self._optimiser.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self._clip)
        self._optimiser.step()
        self._losses.append((loss if shown is None else shown).item())

    def _report(self, done: int, elapsed: float) -> None:
        loss = sum(self._losses) / max(1, len(self._losses))
        self._losses.clear()
        left = int(elapsed / done * (self._steps - done))
        print(
            f"{self._name:13s} {done:6d}/{self._steps}  loss {loss:8.4f}  "
            f"{done * self._batch / elapsed:5.0f} images/s  "
            f"{left // 60:3d}:{left % 60:02d} left",
            file=sys.stderr,
            flush=True,
        )


def warmup_then_decay(step: int, steps: int, warmup: int, hold: float, floor: float) -> float:
    """Learning-rate factor: linear warm-up, constant until ``hold``, linear decay to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    fraction = step / steps
    if fraction < hold:
        return 1.0
    return max(floor, (1 - fraction) / (1 - hold))
