"""PGU: hardening leaves alone what layers give for retained prompts, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from spqr_checks.alignment.pgu import Hardening, core_space
from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest

PGU = method("pgu")
QUICK: dict[str, Any] = {"steps": 1, "batch": 2, "latents": "pool", "pool": 2, "inputs": 4}


def test_the_space_is_spanned_by_the_leading_directions_that_hold_the_share() -> None:
    axes = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    gram = (axes * torch.tensor([6.0, 3.0, 0.9, 0.1])) @ axes.T
    for energy, n in ((0.0, 0), (0.5, 1), (0.59, 1), (0.61, 2), (0.89, 2), (0.95, 3), (1.0, 4)):
        space = core_space(gram.double(), energy)
        assert space.shape == (4, n), energy
        if n:
            torch.testing.assert_close(space @ space.T, (axes[:, :n] @ axes[:, :n].T).double())


def test_hardening_moves_no_output_of_the_space(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[dict[str, nn.Linear], dict[str, Tensor], dict[str, Tensor]]] = []
    own = Hardening.spaces

    def note(self: Hardening, layers: dict[str, nn.Linear]) -> dict[str, Tensor]:
        spaces = own(self, layers)
        seen.append((layers, spaces, {n: m.weight.detach().clone() for n, m in layers.items()}))
        return spaces

    monkeypatch.setattr(Hardening, "spaces", note)
    options = QUICK | {"harden_steps": 3, "harden_rate": 1e-2, "energy": 0.5}
    PGU.align(tiny_pipeline, make_request(), PGU.parse(options), tmp_path)
    ((layers, spaces, before),) = seen
    assert len(layers) > 5
    assert all("attn2" in name for name in layers)
    moved = 0
    for name, layer in layers.items():
        delta, m = layer.weight.detach() - before[name], spaces[name].float()
        assert m.shape[1] >= 1
        torch.testing.assert_close(
            delta @ m, torch.zeros(len(delta), m.shape[1]), atol=1e-5, rtol=0
        )
        moved += bool(delta.abs().max() > 1e-3)
    assert moved > 5


def test_a_space_of_everything_lets_nothing_move(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
) -> None:
    given = QUICK | {"harden_steps": 2, "harden_rate": 1e-2}
    training = Hardening(tiny_pipeline, make_request(), PGU.parse(given))
    training.parameters()
    layers = training.trained_layers()
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    training.spaces = lambda layers: {  # type: ignore[method-assign]
        name: torch.eye(layer.in_features) for name, layer in layers.items()
    }
    training.finished()
    for name, layer in layers.items():
        torch.testing.assert_close(layer.weight.detach(), before[name], atol=1e-6, rtol=1e-5)
