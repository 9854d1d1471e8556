"""What holds for every method that distils a model into itself, whatever its loss."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from alignments import prediction
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from spqr_checks.alignment.esd import Erasure, EsdOptions
from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest, Progress
from spqr_checks.alignment.training.unet import is_trained
from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import encode
from spqr_checks.models.weights import copy_state

MakePipeline = Callable[[], StableDiffusionPipeline]
Align = Callable[..., list[Progress]]
LIVE = [
    ("esd", {}),
    ("esd", {"latents": "base"}),
    ("sdd", {"ema": 0.5}),
    ("sdd", {"ema": 0.5, "concept": "harmful"}),
]
POOLED = [
    ("esd", {"latents": "pool"}),
    ("sdd", {"ema": 0.5, "latents": "pool"}),
    ("ca", {}),
    ("ca", {"teacher": "student", "regularisation": 0.5}),
    ("ca", {"variant": "noise"}),
]
pooled = pytest.mark.parametrize(("name", "options"), POOLED)
one_of_each_method = pytest.mark.parametrize(("name", "options"), [LIVE[0], LIVE[2], POOLED[2]])
LOW_RANK = ("esd", {"latents": "pool", "rank": 2})
"""An adapter, which all methods train and save by the same lines."""


@pytest.fixture
def align(make_request: Callable[..., AlignmentRequest]) -> Align:
    """Aligns in a few quick steps; returns what was reported."""

    def run(
        name: str, pipe: StableDiffusionPipeline, out: Path, seed: int = 3, **options: Any
    ) -> list[Progress]:
        seen: list[Progress] = []
        quick = {"steps": 3, "batch": 2, "pool": 4, "learning_rate": 1e-2}
        quick |= {} if name == "esd" else {"weight_decay": 0}
        chosen = method(name)
        chosen.align(pipe, make_request(seed=seed), chosen.parse(quick | options), out, seen.append)
        return seen

    return run


VARIANTS = [
    *product(["esd"], ["x", "x-strict", "all", "u", "u-current"]),
    *product(["sdd", "ca"], ["x"]),
]


@pytest.mark.parametrize(("name", "trains"), VARIANTS)
def test_only_the_variant_s_parameters_change(
    tiny_pipeline: StableDiffusionPipeline, align: Align, tmp_path: Path, name: str, trains: Any
) -> None:
    before = copy_state(tiny_pipeline)
    align(name, tiny_pipeline, tmp_path, trains=trains)
    after = copy_state(tiny_pipeline)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if is_trained(name, trains)}


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "options"), [*LIVE, *POOLED, LOW_RANK])
def test_what_is_saved_predicts_the_same_repetition_is_bit_equal_and_a_seed_another_training(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    entries: list[dict[str, bytes]] = []
    predicted = []
    for turn, seed in enumerate((3, 3, 4)):
        torch.manual_seed(turn)  # nothing may depend on the global generator
        state = torch.get_rng_state()
        out, pipe = tmp_path / str(turn), make_pipeline()
        out.mkdir()
        align(name, pipe, out, seed=seed, keep_weight=1.0, steps=2, **options)
        entries.append({file.name: file.read_bytes() for file in out.iterdir()})
        assert torch.equal(torch.get_rng_state(), state)
        predicted.append(prediction(pipe))
    assert entries[0] == entries[1]
    assert any(name.endswith(".safetensors") for name in entries[0])
    assert not torch.equal(*predicted[1:])
    assert ("denoiser.safetensors" in entries[0]) == ("rank" not in options)
    again = make_pipeline()
    apply_alignment(again, tmp_path / "0")
    torch.testing.assert_close(prediction(again), predicted[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(predicted[0], prediction(make_pipeline()), atol=1e-3)


@pytest.mark.trains
@pytest.mark.parametrize(
    ("name", "options"), [("esd", {"latents": "pool", "eta": 0}), *POOLED[1:3]]
)
def test_training_lowers_the_loss(
    tiny_pipeline: StableDiffusionPipeline,
    align: Align,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    # losses with the noise as their target cannot fall by much in so small a network
    seen = align(name, tiny_pipeline, tmp_path, steps=40, batch=6, rank=4, **options)
    assert (seen[0].step, seen[-1].step) == (1, 40)
    assert seen[-1].loss < 0.5 * seen[0].loss


@pytest.mark.trains
@pooled
def test_preservation_holds_prompts_to_keep(
    make_pipeline: MakePipeline,
    make_request: Callable[..., AlignmentRequest],
    align: Align,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    hidden = encode(make_pipeline(), make_request().keep).hidden

    def moved(keep_weight: float) -> float:
        pipe = make_pipeline()
        before = prediction(pipe, hidden)
        given = {"steps": 20, "batch": 4, "learning_rate": 1e-3, "keep_weight": keep_weight}
        align(name, pipe, tmp_path, **given, **options)
        return float((prediction(pipe, hidden) - before).norm())

    assert moved(30.0) < 0.5 * moved(0.0)


@pooled
def test_networks_that_predict_velocities_are_aligned_too(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    pipe = make_pipeline()
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, prediction_type="v_prediction"
    )
    align(name, pipe, tmp_path, keep_weight=1.0, steps=2, **options)
    moved = prediction(pipe) - prediction(make_pipeline())
    assert moved.isfinite().all()
    assert moved.abs().max() > 1e-4


@one_of_each_method
def test_a_training_that_diverges_writes_nothing(
    tiny_pipeline: StableDiffusionPipeline,
    align: Align,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    with pytest.raises(UserError, match="diverged"):
        align(name, tiny_pipeline, tmp_path, learning_rate=1e30, steps=5, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["esd", "sdd", "ca"])
def test_a_low_precision_pipeline_is_trained_in_single_precision(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path, name: str
) -> None:
    pipe, again = (make_pipeline().to(torch.bfloat16) for _ in range(2))
    align(name, pipe, tmp_path, keep_weight=1.0, rank=2, learning_rate=1e-6)
    assert next(pipe.unet.parameters()).dtype == torch.bfloat16
    apply_alignment(again, tmp_path)
    # steps too small for bfloat16 are on record
    tensors = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    assert any(0 < v.abs().max() < 1e-4 for k, v in tensors.items() if "lora_B" in k)


@pytest.mark.parametrize("target", ["original", "anchor"])
def test_the_frozen_network_is_asked_once_for_lesson_and_what_is_kept(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    """With the answers that it gives part by part."""
    given = {"latents": "pool", "target": target, "batch": 3, "keep_batch": 2, "keep_weight": 1.0}
    training = Erasure(tiny_pipeline, make_request(), EsdOptions.model_validate(given))
    asked, keep = training.lesson(), training.keep
    assert keep is not None
    kept, x, t = keep.batch()
    with torch.no_grad():
        parts = [training.predictor(training.frozen, asked.x, asked.t, one) for one in asked.told]
        expected = training.predictor(training.frozen, x, t, kept)
    networks: list[Any] = []
    own = training.predictor

    def counted(network: Any, *given: Any) -> Tensor:
        networks.append(network)
        return own(network, *given)

    monkeypatch.setattr(training, "predictor", counted)
    lesson, keep_target = training.answered(asked, (kept, x, t))
    torch.testing.assert_close(lesson.target, asked.target(parts), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(keep_target, expected, atol=1e-5, rtol=1e-5)
    assert networks == [training.frozen]
    networks.clear()
    training.loss()
    assert networks == [training.frozen, training.student]
