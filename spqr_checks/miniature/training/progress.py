"""One line every few seconds: stage, step, loss, throughput and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TextIO


class Progress:
    """Iterates over the steps of one stage and reports them.

    The mean of the losses given to :meth:`note` since the last line is printed with it.
    """

    def __init__(
        self, stage: str, steps: int, batch: int, stream: TextIO = sys.stderr, every: float = 10.0
    ) -> None:
        self.stage, self.steps, self.batch = stage, steps, batch
        self._stream, self._every = stream, every
        self._losses: list[float] = []
        self.seconds = 0.0

    def __iter__(self) -> Iterator[int]:
        start = last = time.monotonic()
        for step in range(self.steps):
            yield step
            now = time.monotonic()
            done = step + 1
            if now - last >= self._every or done == self.steps:
                last = now
                self._report(done, now - start)
        self.seconds = time.monotonic() - start

    def note(self, loss: float) -> None:
        self._losses.append(loss)

    def _report(self, done: int, elapsed: float) -> None:
        loss = sum(self._losses) / max(1, len(self._losses))
        self._losses.clear()
        left = int(elapsed / done * (self.steps - done))
        print(
            f"{self.stage:13s} {done:6d}/{self.steps}  loss {loss:8.4f}  "
            f"{done * self.batch / elapsed:5.0f} images/s  "
            f"{left // 60:3d}:{left % 60:02d} left",
            file=self._stream,
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
