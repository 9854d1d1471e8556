"""A pytest plugin: seconds inside networks' forward and backward passes of this process.

Written into the file that ``SPQR_NETWORK_CLOCK`` names. A pass counts once, however many networks
lie in each other; a forward pass inside a backward one (checkpointing) counts as part of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Clock:
    """Counts the outermost of the functions that it wraps.

    Attributes:
        seconds: inside them so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = False

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if self._inside:
                return function(*given, **named)
            self._inside = True
            _wait()
            start = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                _wait()
                self.seconds += time.perf_counter() - start
                self._inside = False

        return call


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


_CLOCK = Clock()


def pytest_configure() -> None:
    torch.nn.Module.__call__ = _CLOCK.timed(torch.nn.Module.__call__)  # type: ignore[method-assign]
    torch.autograd.backward = _CLOCK.timed(torch.autograd.backward)


def pytest_unconfigure() -> None:
    Path(os.environ["SPQR_NETWORK_CLOCK"]).write_text(repr(_CLOCK.seconds), encoding="utf-8")
