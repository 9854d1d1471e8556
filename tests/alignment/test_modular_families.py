"""Modular LoRA on other families: base, safety adapter, fine-tuning and community adapters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from quick import QUICK
from real_classes import SIZE, sampler

from spqr_checks.alignment.modular import assemble
from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.choices import Profile
from spqr_checks.errors import UserError
from spqr_checks.finetuning.datasets import load_images
from spqr_checks.finetuning.trainer import finetune
from spqr_checks.models import adapters, weights
from spqr_checks.models.lora_layers import activate
from spqr_checks.models.pipelines import load_pipeline

KINDS = ("sdxl", "sd3", "flux", "pixart")
FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def base(real_class: Callable[[str], Path]) -> Callable[[str], Any]:
    """Pipelines, each loaded once; not to be changed."""
    return cache(lambda kind: load_pipeline(str(real_class(kind))))


@pytest.fixture(scope="module")
def safety(
    base: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Sealed safety adapters, each trained once, in few steps."""

    @cache
    def train(kind: str) -> Path:
        out, modular = tmp_path_factory.mktemp(f"safety-{kind}"), method("modular-lora")
        request = AlignmentRequest(
            concepts=["red triangle"],
            harmful=["a red triangle"],
            anchors=["a blue triangle"],
            keep=["a green circle"],
            seed=0,
            threads=1,
            sampler=sampler(kind),
        )
        pipe = copy.deepcopy(base(kind))
        modular.align(pipe, request, modular.parse(QUICK["modular-lora"]), out)
        # what was trained is the adapter alone
        assert digest(pipe) == digest(base(kind))
        return out

    return train


def digest(pipe: Any) -> str:
    return weights.weights_digest(weights.denoiser_of(pipe))


def community(pipe: Any) -> None:
    """An adapter that anybody may have made."""
    network, targets = weights.denoiser_of(pipe), ("to_q", "to_v")
    for parameter in adapters.add_lora(network, 2, 2.0, targets, 7, "community"):
        parameter.data += 0.05
    network.requires_grad_(False)


def tuned(pipe: Any, out: Path) -> bytes:
    settings = {"steps": 1, "batch": 2, "learning_rate": 1e-2, "rank": 2, "alpha": 2.0}
    profile = Profile(trains="lora", resolution=SIZE, **settings)
    finetune(pipe, load_images("miniature:stripes:4"), profile, 5, out)
    return (out / FILE).read_bytes()


@pytest.mark.trains
@pytest.mark.parametrize("kind", KINDS)
def test_the_invariants_hold(
    base: Callable[[str], Any], safety: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    sealed, before = safety(kind), {p.name: p.read_bytes() for p in safety(kind).iterdir()}
    # fine-tuning beside the detached adapter is fine-tuning of the base
    beside = copy.deepcopy(base(kind))
    adapters.load_adapter(beside, sealed, "safety")
    activate(weights.denoiser_of(beside), [])
    alone = tuned(copy.deepcopy(base(kind)), tmp_path / "alone")
    assert tuned(beside, tmp_path / "beside") == alone
    assert digest(beside) == digest(base(kind))
    assert {p.name: p.read_bytes() for p in sealed.iterdir()} == before
    # W0 + ΔW_safe + ΔW_ft + ΔW_community, in either order
    first = assemble(copy.deepcopy(base(kind)), sealed)
    safe = weights.copy_state(first)
    adapters.load_adapter(first, tmp_path / "alone", "tuning")
    community(first)
    adapters.merge(first)
    last = copy.deepcopy(base(kind))
    community(last)
    adapters.load_adapter(last, tmp_path / "alone", "tuning")
    assemble(last, sealed)
    one, other, plain = map(weights.copy_state, (first, last, base(kind)))
    moved = [name for name in plain if not torch.equal(plain[name], safe[name])]
    assert moved
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-5, rtol=1e-5)
    assert any(not torch.allclose(one[name], safe[name], atol=1e-4) for name in one)


@pytest.mark.parametrize("kind", ["flux"])
def test_nothing_is_served_without_the_adapter(
    base: Callable[[str], Any], safety: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    pipe = copy.deepcopy(base(kind))

    def without(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for path in safety(kind).iterdir():
            if path.name != name:
                (folder / path.name).write_bytes(path.read_bytes())
        return folder

    for missing, said in (
        (FILE, "is missing, and without it the model is not the safe one"),
        ("modular.json", r"no modular\.json"),
    ):
        with pytest.raises(UserError, match=said):
            assemble(pipe, without(missing))
    with torch.no_grad():
        pipe.transformer.proj_out.bias += 1e-3
    with pytest.raises(UserError, match="belongs to a denoiser with digest"):
        assemble(pipe, str(safety(kind)))
    assert not adapters.active_adapters(pipe.transformer)
