"""Benign fine-tuning: what it changes, what it leaves alone, what it writes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import load_file
from tunings import KINDS, Snapshot, Tuned, changed, files, predict, profile
from written_adapters import tensors_of

from spqr_checks.errors import UserError
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.trainer import DivergedError, apply_tuning, finetune
from spqr_checks.models import adapters, lora_files, weights
from spqr_checks.models.lora_layers import attached_adapters

lora = pytest.mark.parametrize("tuned", ["lora"], indirect=True)
cross_attention = pytest.mark.parametrize("tuned", ["cross_attention"], indirect=True)
denoiser = pytest.mark.parametrize("tuned", ["denoiser"], indirect=True)


# ---- what a profile trains -------------------------------------------------------------------


@lora
def test_lora_trains_an_adapter_on_all_attention_and_no_weight(tuned: Tuned) -> None:
    tensors = tensors_of(tuned.folder)
    layers = {name.rsplit(".lora_", 1)[0] for name in tensors}
    attention = {
        name.rsplit(".", 1)[0]
        for name in weights.copy_state(tuned.pipe)
        if ".attn" in name and name.split(".attn")[1][2:].startswith("to_")
    }
    assert layers == attention
    assert {name.split(".attn")[1][2:] for name in layers} == set(adapters.TARGETS)
    assert {".attn1." in name for name in layers} == {True, False}
    # B starts at zero, so whatever is not zero was trained
    assert all(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)


@cross_attention
def test_cross_attention_trains_its_keys_values_and_outputs_and_nothing_else(tuned: Tuned) -> None:
    before = weights.copy_state(tuned.pipe)
    suffixes = ("to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
    expected = {n for n in before if any(n.endswith(f".attn2.{end}") for end in suffixes)}
    assert changed(before, load_file(tuned.folder / "denoiser.safetensors")) == expected
    assert expected


@denoiser
def test_denoiser_trains_every_weight(tuned: Tuned) -> None:
    before = weights.copy_state(tuned.pipe)
    assert changed(before, load_file(tuned.folder / "denoiser.safetensors")) == set(before)


def test_the_pipeline_itself_stays_as_it_was(tuned: Tuned) -> None:
    assert tuned.before.equals(Snapshot.of(tuned.pipe))
    assert not attached_adapters(tuned.pipe.unet)


def test_the_pipeline_stays_as_it_was_when_training_fails(
    pipe: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    unet, before = pipe.unet, Snapshot.of(pipe)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(pipe, scenes, profile("denoiser"), 0, tmp_path, report=fail)
    assert pipe.unet is unet
    assert before.equals(Snapshot.of(pipe))


def test_stable_diffusion_xl_is_tuned_too(
    tiny_xl: StableDiffusionXLPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    before = weights.copy_state(tiny_xl)
    finetune(tiny_xl, scenes, profile("cross_attention"), 0, tmp_path)
    apply_tuning(tiny_xl, tmp_path)
    assert changed(before, weights.copy_state(tiny_xl))


# ---- reproducibility -------------------------------------------------------------------------


def test_equal_inputs_give_equal_bytes_and_another_seed_other_weights(
    tuned: Tuned, scenes: CaptionedImages, tmp_path: Path
) -> None:
    for seed in (3, 4):
        # nothing global may matter
        torch.manual_seed(seed)
        finetune(tuned.pipe, scenes, profile(tuned.kind), seed, tmp_path / str(seed))
    one, two, other = (files(p) for p in (tuned.folder, tmp_path / "3", tmp_path / "4"))
    assert one == two
    assert one.keys() == other.keys()
    configs = {adapters.CONFIG_FILE, lora_files.PEFT_CONFIG}  # hold no weights
    assert {name for name in one if one[name] == other[name]} == configs & one.keys()


def test_global_state_of_torch_is_left_alone(
    base: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    def state() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
        )

    during: list[int] = []

    def note(*_: object) -> None:
        during.append(torch.get_num_threads())

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        before = state()
        finetune(base, scenes, profile("lora"), 0, tmp_path, threads=1, report=note)
        assert state() == before
    finally:
        torch.set_num_threads(threads)
    assert set(during) == {1}


@pytest.mark.slow
@denoiser
def test_another_process_gives_equal_bytes(
    tuned: Tuned, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    code = f"""
import sys, torch
from pathlib import Path
from diffusers import StableDiffusionPipeline
from spqr_checks.finetuning import datasets, trainer
from spqr_checks.choices import Profile
torch.manual_seed(99)
pipe = StableDiffusionPipeline.from_pretrained({str(tiny_pipeline_dir)!r})
profile = Profile.model_validate_json(sys.argv[1])
data = datasets.load_images("miniature:stripes:6")
trainer.finetune(pipe, data, profile, 3, Path({str(tmp_path)!r}))
"""
    command = [sys.executable, "-c", code, profile("denoiser").model_dump_json()]
    done = forked.run(command, tmp_path, os.environ, timeout=240)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == files(tuned.folder)


# ---- the entry -------------------------------------------------------------------------------


def test_the_record_says_how_the_entry_was_made(tuned: Tuned, scenes: CaptionedImages) -> None:
    record = json.loads((tuned.folder / "tuning.json").read_text(encoding="utf-8"))
    assert record["profile"] == profile(tuned.kind).model_dump(mode="json")
    assert (record["seed"], record["steps"], record["images"]) == (3, 2, 6)
    assert record["data_digest"] == scenes.contents_digest()
    assert record["base_digest"] == weights.weights_digest(tuned.pipe.unet)
    assert record["loss"] == pytest.approx(sum(tuned.losses) / 2)
    kinds = {adapters.WEIGHTS_FILE, weights.FILE} & set(files(tuned.folder))
    assert kinds == {adapters.WEIGHTS_FILE if tuned.kind == "lora" else weights.FILE}


@lora
def test_an_alpha_other_than_the_rank_survives(tuned: Tuned, pipe: StableDiffusionPipeline) -> None:
    record = json.loads((tuned.folder / "adapter.json").read_text(encoding="utf-8"))
    assert (record["r"], record["alpha"]) == (4, 12.0)
    before = weights.copy_state(pipe)
    apply_tuning(pipe, tuned.folder)
    # what acts is W + (alpha / r) B A
    adapters.merge(pipe)
    merged, tensors = weights.copy_state(pipe), tensors_of(tuned.folder)
    name = next(key for key in tensors if key.endswith("attn2.to_v.lora_A.weight"))
    layer = name.removesuffix(".lora_A.weight")
    delta = 3.0 * tensors[f"{layer}.lora_B.weight"] @ tensors[name]
    torch.testing.assert_close(merged[f"{layer}.weight"], before[f"{layer}.weight"] + delta)


def test_an_entry_that_would_act_at_another_strength_is_noticed(
    base: StableDiffusionPipeline,
    scenes: CaptionedImages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save = adapters.save_adapter

    def lossy(pipe: Any, folder: Path, name: str, metadata: Any) -> None:
        save(pipe, folder, name, metadata)
        path = folder / "adapter.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"alpha": record["r"]}))

    monkeypatch.setattr(adapters, "save_adapter", lossy)
    with pytest.raises(RuntimeError, match="does not predict what was trained"):
        finetune(base, scenes, profile("lora"), 0, tmp_path)


@pytest.mark.parametrize("trains", ["lora", "denoiser"])
def test_half_precision_is_trained_in_float32_and_read_back_exactly(
    pipe: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path, trains: str
) -> None:
    pipe = pipe.to(torch.bfloat16)
    # the exact comparison is made by finetune itself
    finetune(pipe, scenes, profile(trains), 0, tmp_path)
    before = predict(pipe)
    apply_tuning(pipe, tmp_path)
    assert pipe.unet.dtype == torch.bfloat16
    assert not torch.equal(predict(pipe), before)


@pytest.mark.heavy
def test_a_curriculum_writes_a_checkpoint_after_each_block(
    pipe: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    chosen = profile("lora", steps=None, epochs=2, curriculum=(2, 4, 6))
    finetune(pipe, scenes, chosen, 0, tmp_path / "all")
    written = files(tmp_path / "all")
    entry = {"adapter.json", adapters.WEIGHTS_FILE, "tuning.json"}
    entry |= {"adapter_config.json", "adapter_model.safetensors"}
    assert set(written) == entry | {f"curriculum-{b}/{f}" for b in (2, 4, 6) for f in entry}
    records = [json.loads(written[f"curriculum-{bound}/tuning.json"]) for bound in (2, 4, 6)]
    assert [record["steps"] for record in records] == [2, 4, 6]
    assert all(written[name] == written[f"curriculum-6/{name}"] for name in entry)
    # the first checkpoint is that of a training on the first block alone
    first = CaptionedImages(scenes.images[:2], scenes.captions[:2])
    finetune(pipe, first, profile("lora"), 0, tmp_path / "first")
    name = adapters.WEIGHTS_FILE
    assert files(tmp_path / "first")[name] == written[f"curriculum-2/{name}"]
    assert len({written[f"curriculum-{bound}/{name}"] for bound in (2, 4, 6)}) == 3
    apply_tuning(pipe, tmp_path / "all" / "curriculum-4")


@pytest.mark.parametrize("trains", KINDS)
def test_a_diverged_training_writes_nothing(
    base: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path, trains: str
) -> None:
    chosen = profile(trains, learning_rate=1e30)
    with pytest.raises(DivergedError, match="try a learning rate below 1e"):
        finetune(base, scenes, chosen, 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_images_are_refused(base: StableDiffusionPipeline, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images"):
        finetune(base, CaptionedImages([], []), profile("lora"), 0, tmp_path)


# ---- learning --------------------------------------------------------------------------------


@pytest.mark.trains
@pytest.mark.parametrize(
    ("trains", "prediction"),
    [
        ("denoiser", "epsilon"),
        ("denoiser", "v_prediction"),
        ("denoiser", "sample"),
        ("cross_attention", "sample"),
        ("lora", "sample"),
    ],
)
def test_the_loss_falls_on_data_that_can_be_learned_by_heart(
    pipe: StableDiffusionPipeline,
    scenes: CaptionedImages,
    tmp_path: Path,
    trains: str,
    prediction: str,
) -> None:
    pipe.scheduler = DPMSolverMultistepScheduler(prediction_type=prediction)
    few = CaptionedImages(scenes.images[:2], scenes.captions[:2])

    def last_losses(learning_rate: float) -> float:
        losses: list[float] = []
        chosen = profile(trains, steps=40, batch=8, rank=8, learning_rate=learning_rate)
        folder = tmp_path / str(learning_rate)
        finetune(pipe, few, chosen, 0, folder, report=lambda *r: losses.append(r[2]))
        return sum(losses[-10:])

    # an adapter's two factors multiply: beyond 1e-2 it leaps over the minimum on some CPUs
    rate = {"denoiser": 5e-3, "cross_attention": 2e-2, "lora": 4e-3}[trains]
    # the same images, noise and timesteps, with and without learning
    learned, standing = last_losses(rate), last_losses(1e-12)
    assert learned < standing * 0.75
