"""The random numbers of one scheduler step, to be drawn a second time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Generators = list[torch.Generator] | torch.Generator | None


@dataclass(frozen=True)
class Randomness:
    """States of a step's generators: its own, and torch's global one, which a few schedulers use.

    Attributes:
        own: copies of the generators, in the same arrangement.
        device: whose global generator may be drawn from beside that of the CPU.
    """

    own: Generators
    device: torch.device
    cpu: torch.Tensor
    cuda: torch.Tensor | None

    @classmethod
    def now(cls, generators: Generators, device: torch.device) -> Randomness:
        """What is about to be drawn."""
        own: Generators
        if isinstance(generators, list):
            own = [_copied(generator) for generator in generators]
        else:
            own = None if generators is None else _copied(generators)
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(own, device, torch.get_rng_state(), cuda)

    @contextmanager
    def again(self) -> Iterator[Generators]:
        """Generators that draw the same again; the global one is left as it is now."""
        with torch.random.fork_rng(devices=[] if self.cuda is None else [self.device]):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            yield self.own


def _copied(generator: torch.Generator) -> torch.Generator:
    copied = torch.Generator(generator.device)
    copied.set_state(generator.get_state())
    return copied
