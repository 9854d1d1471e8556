"""Benign fine-tuning: what it changes, what it leaves alone, what it writes."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.finetuning import trainer
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.trainer import (
    DivergedError,
    apply_tuning,
    apply_tuning_delta,
    finetune,
)
from spqr_checks.models import adapters, weights
from spqr_checks.models.lora_layers import activate, active_adapters, attached_adapters
from spqr_checks.settings import Profile

KINDS = ("lora", "cross_attention", "denoiser")


def profile(trains: str, **changes: Any) -> Profile:
    """Short, and fast enough to be seen."""
    defaults = {"steps": 3, "batch": 4, "learning_rate": 1e-2, "rank": 4, "alpha": 12.0}
    return Profile.model_validate({"trains": trains} | defaults | changes)


def predict(pipe: StableDiffusionPipeline) -> Tensor:
    """The denoiser's output on a fixed input."""
    generator = torch.Generator().manual_seed(5)
    x, text = (torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 8), (2, 32, 16)))
    dtype = pipe.unet.dtype
    with torch.no_grad():
        predicted = pipe.unet(x.to(dtype), torch.tensor([9, 700]), text.to(dtype)).sample
    assert isinstance(predicted, Tensor)
    return predicted


def add_safety(pipe: StableDiffusionPipeline) -> None:
    """An adapter, frozen and active, that changes every attention layer."""
    parameters = adapters.add_lora(pipe.unet, 2, 2.0, adapters.TARGETS, 7, "safety")
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    activate(pipe.unet, ["safety"])


def files(folder: Path) -> dict[str, bytes]:
    """Contents of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- what a profile trains -------------------------------------------------------------------


def _changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_lora_trains_an_adapter_on_all_attention_and_no_weight(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    before = weights.copy_state(tiny_pipeline)
    finetune(tiny_pipeline, scenes, profile("lora"), 0, tmp_path)
    tensors = load_file(tmp_path / "adapter.safetensors")
    layers = {name.rsplit(".lora_", 1)[0] for name in tensors}
    attention = {
        name.rsplit(".", 1)[0]
        for name in before
        if ".attn" in name and name.split(".attn")[1][2:].startswith("to_")
    }
    assert layers == attention
    assert {name.split(".attn")[1][2:] for name in layers} == set(adapters.TARGETS)
    assert {".attn1." in name for name in layers} == {True, False}
    # B starts at zero, so whatever is not zero was trained
    assert all(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
    apply_tuning(tiny_pipeline, tmp_path)
    assert not _changed(before, weights.copy_state(tiny_pipeline))


def test_cross_attention_trains_its_keys_values_and_outputs_and_nothing_else(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    before = weights.copy_state(tiny_pipeline)
    finetune(tiny_pipeline, scenes, profile("cross_attention"), 0, tmp_path)
    changed = _changed(before, load_file(tmp_path / "denoiser.safetensors"))
    suffixes = ("to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias")
    assert changed == {
        name for name in before if any(name.endswith(f".attn2.{end}") for end in suffixes)
    }
    assert changed


def test_denoiser_trains_every_weight(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    before = weights.copy_state(tiny_pipeline)
    finetune(tiny_pipeline, scenes, profile("denoiser"), 0, tmp_path)
    changed = _changed(before, load_file(tmp_path / "denoiser.safetensors"))
    assert changed == set(before)


@pytest.mark.parametrize("trains", KINDS)
def test_the_pipeline_itself_stays_as_it_was(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path, trains: str
) -> None:
    unet, prediction = tiny_pipeline.unet, predict(tiny_pipeline)
    digests = [
        weights.weights_digest(part)
        for part in (unet, tiny_pipeline.vae, tiny_pipeline.text_encoder)
    ]
    gradients = [p.requires_grad for p in unet.parameters()]
    finetune(tiny_pipeline, scenes, profile(trains), 0, tmp_path)
    assert tiny_pipeline.unet is unet
    assert digests == [
        weights.weights_digest(part)
        for part in (unet, tiny_pipeline.vae, tiny_pipeline.text_encoder)
    ]
    assert not unet.training
    assert not attached_adapters(unet)
    assert gradients == [p.requires_grad for p in unet.parameters()]
    assert all(p.grad is None for p in unet.parameters())
    assert torch.equal(predict(tiny_pipeline), prediction)


def test_the_pipeline_stays_as_it_was_when_training_fails(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    unet, digest = tiny_pipeline.unet, weights.weights_digest(tiny_pipeline.unet)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_pipeline, scenes, profile("denoiser"), 0, tmp_path, report=fail)
    assert tiny_pipeline.unet is unet
    assert weights.weights_digest(unet) == digest


# ---- reproducibility -------------------------------------------------------------------------


@pytest.mark.parametrize("trains", KINDS)
def test_equal_inputs_give_equal_bytes_and_another_seed_other_weights(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path, trains: str
) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        # nothing global may matter
        torch.manual_seed(len(name))
        torch.randn(7)
        finetune(tiny_pipeline, scenes, profile(trains), seed, tmp_path / name)
    one, two, other = (files(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert all(one[name] != other[name] for name in one if name != "adapter.json")


def test_global_state_of_torch_is_left_alone(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
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
        finetune(tiny_pipeline, scenes, profile("lora"), 0, tmp_path, threads=1, report=note)
        assert state() == before
    finally:
        torch.set_num_threads(threads)
    assert set(during) == {1}


@pytest.mark.slow
def test_another_process_gives_equal_bytes(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    tiny_pipeline.save_pretrained(tmp_path / "pipeline")
    code = f"""
import sys, torch
from pathlib import Path
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from spqr_checks.finetuning import datasets, trainer
from spqr_checks.settings import Profile
torch.manual_seed(99)
pipe = StableDiffusionPipeline.from_pretrained({str(tmp_path / "pipeline")!r})
profile = Profile.model_validate_json(sys.argv[1])
data = datasets.load_images("miniature:stripes:12")
trainer.finetune(pipe, data, profile, 0, Path({str(tmp_path / "there")!r}))
"""
    chosen = profile("denoiser")
    command = [sys.executable, "-c", code, chosen.model_dump_json()]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    finetune(tiny_pipeline, scenes, chosen, 0, tmp_path / "here")
    assert files(tmp_path / "here") == files(tmp_path / "there")


# ---- the entry -------------------------------------------------------------------------------


@pytest.mark.parametrize("trains", KINDS)
def test_the_record_says_how_the_entry_was_made(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path, trains: str
) -> None:
    losses: list[float] = []
    finetune(
        tiny_pipeline,
        scenes,
        profile(trains),
        5,
        tmp_path,
        report=lambda step, steps, loss: losses.append(loss),
    )
    record = json.loads((tmp_path / "tuning.json").read_text(encoding="utf-8"))
    assert record["profile"] == profile(trains).model_dump(mode="json")
    assert (record["seed"], record["steps"], record["images"]) == (5, 3, 12)
    assert record["data_digest"] == scenes.contents_digest()
    assert record["base_digest"] == weights.weights_digest(tiny_pipeline.unet)
    assert record["loss"] == pytest.approx(sum(losses) / 3)
    kinds = {"adapter.safetensors", "denoiser.safetensors"} & set(files(tmp_path))
    assert kinds == {"adapter.safetensors" if trains == "lora" else "denoiser.safetensors"}


def test_an_alpha_other_than_the_rank_survives(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    finetune(tiny_pipeline, scenes, profile("lora", rank=4, alpha=12.0), 0, tmp_path)
    record = json.loads((tmp_path / "adapter.json").read_text(encoding="utf-8"))
    assert (record["r"], record["alpha"]) == (4, 12.0)
    before = weights.copy_state(tiny_pipeline)
    apply_tuning(tiny_pipeline, tmp_path)
    # what acts is W + (alpha / r) B A
    adapters.merge(tiny_pipeline)
    merged, tensors = weights.copy_state(tiny_pipeline), load_file(tmp_path / "adapter.safetensors")
    name = next(key for key in tensors if key.endswith("attn2.to_v.lora_A.weight"))
    layer = name.removesuffix(".lora_A.weight")
    delta = 3.0 * tensors[f"{layer}.lora_B.weight"] @ tensors[name]
    torch.testing.assert_close(merged[f"{layer}.weight"], before[f"{layer}.weight"] + delta)


def test_an_entry_that_would_act_at_another_strength_is_noticed(
    tiny_pipeline: StableDiffusionPipeline,
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
        finetune(tiny_pipeline, scenes, profile("lora", rank=4, alpha=8.0), 0, tmp_path)


@pytest.mark.parametrize("trains", KINDS)
def test_half_precision_is_trained_in_float32_and_read_back_exactly(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path, trains: str
) -> None:
    pipe = tiny_pipeline.to(torch.bfloat16)
    # the exact comparison is made by finetune itself
    finetune(pipe, scenes, profile(trains), 0, tmp_path)
    before = predict(pipe)
    apply_tuning(pipe, tmp_path)
    assert pipe.unet.dtype == torch.bfloat16
    assert not torch.equal(predict(pipe), before)


@pytest.mark.parametrize("trains", KINDS)
def test_stable_diffusion_xl_is_tuned_too(
    tiny_xl: StableDiffusionXLPipeline, scenes: CaptionedImages, tmp_path: Path, trains: str
) -> None:
    before = weights.copy_state(tiny_xl)
    finetune(tiny_xl, scenes, profile(trains), 0, tmp_path)
    apply_tuning(tiny_xl, tmp_path)
    adapters.merge(tiny_xl)
    assert _changed(before, weights.copy_state(tiny_xl))


# ---- curriculum ------------------------------------------------------------------------------


def test_a_curriculum_writes_a_checkpoint_after_each_block(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    chosen = profile("lora", steps=None, epochs=2, batch=2, curriculum=(4, 8, 12))
    finetune(tiny_pipeline, scenes, chosen, 0, tmp_path / "all")
    written = files(tmp_path / "all")
    entry = {"adapter.json", "adapter.safetensors", "tuning.json"}
    assert set(written) == entry | {f"curriculum-{b}/{f}" for b in (4, 8, 12) for f in entry}
    steps = [
        json.loads(written[f"curriculum-{bound}/tuning.json"])["steps"] for bound in (4, 8, 12)
    ]
    assert steps == [4, 8, 12]
    assert all(written[name] == written[f"curriculum-12/{name}"] for name in entry)
    # the first checkpoint is that of a training on the first block alone
    first = CaptionedImages(scenes.images[:4], scenes.captions[:4])
    alone = profile("lora", steps=None, epochs=2, batch=2)
    finetune(tiny_pipeline, first, alone, 0, tmp_path / "first")
    name = "adapter.safetensors"
    assert files(tmp_path / "first")[name] == written[f"curriculum-4/{name}"]
    assert len({written[f"curriculum-{bound}/{name}"] for bound in (4, 8, 12)}) == 3
    apply_tuning(tiny_pipeline, tmp_path / "all" / "curriculum-8")


# ---- divergence ------------------------------------------------------------------------------


@pytest.mark.parametrize("trains", KINDS)
def test_a_diverged_training_writes_nothing(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path, trains: str
) -> None:
    chosen = profile(trains, learning_rate=1e30)
    with pytest.raises(DivergedError, match="try a learning rate below 1e"):
        finetune(tiny_pipeline, scenes, chosen, 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---- adapters that are there already ---------------------------------------------------------


@pytest.mark.parametrize("trains", KINDS)
@pytest.mark.parametrize("detach", ["activate", "disable"])
def test_a_detached_adapter_leaves_no_trace_in_the_training(
    tiny_pipeline: StableDiffusionPipeline,
    scenes: CaptionedImages,
    tmp_path: Path,
    trains: str,
    detach: str,
) -> None:
    finetune(tiny_pipeline, scenes, profile(trains), 0, tmp_path / "clean")
    add_safety(tiny_pipeline)
    safe = predict(tiny_pipeline)
    if detach == "activate":
        activate(tiny_pipeline.unet, [])
    else:
        tiny_pipeline.unet.disable_adapters()
    finetune(tiny_pipeline, scenes, profile(trains), 0, tmp_path / "detached")
    assert files(tmp_path / "detached") == files(tmp_path / "clean")
    # and it is still there, as it was
    tiny_pipeline.unet.enable_adapters()
    activate(tiny_pipeline.unet, ["safety"])
    assert torch.equal(predict(tiny_pipeline), safe)


def test_an_adapter_that_acts_is_trained_against_but_not_changed(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    finetune(tiny_pipeline, scenes, profile("lora"), 0, tmp_path / "clean")
    add_safety(tiny_pipeline)
    safe = predict(tiny_pipeline)
    tensors = copy.deepcopy(adapters.adapter_tensors(tiny_pipeline.unet, "safety"))
    finetune(tiny_pipeline, scenes, profile("lora"), 0, tmp_path / "beside")
    name = "adapter.safetensors"
    assert files(tmp_path / "beside")[name] != files(tmp_path / "clean")[name]
    assert not any("safety" in key for key in load_file(tmp_path / "beside" / name))
    assert torch.equal(predict(tiny_pipeline), safe)
    apply_tuning(tiny_pipeline, tmp_path / "beside")
    assert active_adapters(tiny_pipeline.unet) == ["safety", "tuning"]
    now = adapters.adapter_tensors(tiny_pipeline.unet, "safety")
    assert all(torch.equal(now[key], tensors[key]) for key in tensors)
    assert not torch.equal(predict(tiny_pipeline), safe)


def test_taking_the_tuning_off_gives_back_exactly_the_safe_model_and_then_the_base(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    base = predict(tiny_pipeline)
    finetune(tiny_pipeline, scenes, profile("lora"), 0, tmp_path)
    add_safety(tiny_pipeline)
    safe = predict(tiny_pipeline)
    apply_tuning(tiny_pipeline, tmp_path)
    adapters.remove(tiny_pipeline, "tuning")
    assert torch.equal(predict(tiny_pipeline), safe)
    adapters.remove(tiny_pipeline, "safety")
    assert torch.equal(predict(tiny_pipeline), base)


@pytest.mark.parametrize("trains", ["cross_attention", "denoiser"])
def test_an_adapter_that_acts_is_merged_where_weights_are_trained(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path, trains: str
) -> None:
    merged = copy.deepcopy(tiny_pipeline)
    add_safety(merged)
    adapters.merge(merged)
    add_safety(tiny_pipeline)
    safe = predict(tiny_pipeline)
    for name, pipe in (("merged", merged), ("acting", tiny_pipeline)):
        finetune(pipe, scenes, profile(trains), 0, tmp_path / name)
    assert torch.equal(predict(tiny_pipeline), safe)
    tuned = [load_file(tmp_path / name / "denoiser.safetensors") for name in ("merged", "acting")]
    assert not _changed(*tuned)
    apply_tuning(tiny_pipeline, tmp_path / "acting")
    assert not attached_adapters(tiny_pipeline.unet)
    assert not _changed(tuned[1], weights.copy_state(tiny_pipeline))


def test_weights_are_not_put_on_a_model_with_other_adapters(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    finetune(tiny_pipeline, scenes, profile("denoiser"), 0, tmp_path)
    add_safety(tiny_pipeline)
    with pytest.raises(ValueError, match=r"with the adapters \[\], not with \['safety'\]"):
        apply_tuning(tiny_pipeline, tmp_path)


def test_an_adapter_is_not_put_on_a_model_whose_adapters_are_disabled(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    finetune(tiny_pipeline, scenes, profile("lora"), 0, tmp_path)
    add_safety(tiny_pipeline)
    tiny_pipeline.unet.disable_adapters()
    with pytest.raises(ValueError, match="disabled"):
        apply_tuning(tiny_pipeline, tmp_path)


@pytest.mark.parametrize("trains", KINDS)
def test_a_modular_tuning_is_trained_on_the_base_and_added_to_the_aligned_model(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path, trains: str
) -> None:
    base = weights.copy_state(tiny_pipeline)
    finetune(tiny_pipeline, scenes, profile(trains), 0, tmp_path)
    tuned = copy.deepcopy(tiny_pipeline)
    apply_tuning(tuned, tmp_path)
    adapters.merge(tuned)
    aligned = copy.deepcopy(tiny_pipeline)
    with torch.no_grad():
        aligned.unet.conv_in.weight += 0.5
    safe = weights.copy_state(aligned)
    apply_tuning_delta(aligned, tmp_path, base)
    adapters.merge(aligned)
    change = weights.copy_state(tuned)
    for name, value in weights.copy_state(aligned).items():
        torch.testing.assert_close(value, safe[name] + change[name] - base[name])


# ---- entries that are wrong ------------------------------------------------------------------


def test_a_folder_without_a_record_is_refused(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"tuning\.json: not a fine-tuning's record"):
        apply_tuning(tiny_pipeline, tmp_path)


@pytest.mark.parametrize("record", ["", "[]", '{"format": "other"}'])
def test_another_record_is_refused(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path, record: str
) -> None:
    (tmp_path / "tuning.json").write_text(record)
    with pytest.raises(UserError, match="fine-tune again"):
        apply_tuning(tiny_pipeline, tmp_path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "neither adapter.safetensors nor denoiser.safetensors"),
        (("adapter", "denoiser"), "both adapter.safetensors and denoiser.safetensors"),
    ],
)
def test_an_entry_is_either_an_adapter_or_weights(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    (tmp_path / trainer.RECORD).write_text('{"format": "spqr-tuning", "merged": []}')
    for name in names:
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    for apply in (apply_tuning, lambda pipe, folder: apply_tuning_delta(pipe, folder, {})):
        with pytest.raises(UserError, match=said):
            apply(tiny_pipeline, tmp_path)


def test_no_images_are_refused(tiny_pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images"):
        finetune(tiny_pipeline, CaptionedImages([], []), profile("lora"), 0, tmp_path)


# ---- learning --------------------------------------------------------------------------------


@pytest.mark.trains
@pytest.mark.parametrize(
    ("trains", "prediction"),
    [
        ("denoiser", "epsilon"),
        ("denoiser", "v_prediction"),
        ("denoiser", "sample"),
        ("cross_attention", "epsilon"),
        ("lora", "epsilon"),
    ],
)
def test_the_loss_falls_on_data_that_can_be_learned_by_heart(
    tiny_pipeline: StableDiffusionPipeline,
    scenes: CaptionedImages,
    tmp_path: Path,
    trains: str,
    prediction: str,
) -> None:
    tiny_pipeline.scheduler = DPMSolverMultistepScheduler(prediction_type=prediction)
    few = CaptionedImages(scenes.images[:2], scenes.captions[:2])

    def last_losses(learning_rate: float) -> float:
        losses: list[float] = []
        chosen = profile(trains, steps=30, batch=8, rank=8, learning_rate=learning_rate)
        folder = tmp_path / str(learning_rate)
        finetune(tiny_pipeline, few, chosen, 0, folder, report=lambda *r: losses.append(r[2]))
        return sum(losses[-10:])

    # the same images, noise and timesteps, with and without learning
    learned, standing = last_losses(5e-3), last_losses(1e-12)
    assert learned < standing * (0.75 if trains == "denoiser" else 0.985)
