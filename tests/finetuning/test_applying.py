"""Fine-tunings beside other adapters, and put on the models they belong to."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from tunings import Tuned, add_safety, changed, files, predict, profile

from spqr_checks.errors import UserError
from spqr_checks.finetuning import trainer
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.trainer import apply_tuning, apply_tuning_delta, finetune
from spqr_checks.models import adapters, weights
from spqr_checks.models.lora_layers import activate, active_adapters, attached_adapters

lora = pytest.mark.parametrize("tuned", ["lora"], indirect=True)
of_weights = pytest.mark.parametrize("tuned", ["cross_attention", "denoiser"], indirect=True)


@pytest.mark.heavy
@pytest.mark.parametrize("detach", ["activate", "disable"])
def test_a_detached_adapter_leaves_no_trace_in_the_training(
    tuned: Tuned,
    pipe: StableDiffusionPipeline,
    scenes: CaptionedImages,
    tmp_path: Path,
    detach: str,
) -> None:
    add_safety(pipe)
    safe = predict(pipe)
    if detach == "activate":
        activate(pipe.unet, [])
    else:
        pipe.unet.disable_adapters()
    finetune(pipe, scenes, profile(tuned.kind), 3, tmp_path)
    assert files(tmp_path) == files(tuned.folder)
    # and it is still there, as it was
    pipe.unet.enable_adapters()
    activate(pipe.unet, ["safety"])
    assert torch.equal(predict(pipe), safe)


@pytest.mark.heavy
@lora
def test_an_adapter_that_acts_is_trained_against_but_not_changed(
    tuned: Tuned, pipe: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    add_safety(pipe)
    safe = predict(pipe)
    tensors = copy.deepcopy(adapters.adapter_tensors(pipe.unet, "safety"))
    finetune(pipe, scenes, profile("lora"), 3, tmp_path)
    name = "pytorch_lora_weights.safetensors"
    assert files(tmp_path)[name] != files(tuned.folder)[name]
    assert not any("safety" in key for key in load_file(tmp_path / name))
    assert torch.equal(predict(pipe), safe)
    apply_tuning(pipe, tmp_path)
    assert active_adapters(pipe.unet) == ["safety", "tuning"]
    now = adapters.adapter_tensors(pipe.unet, "safety")
    assert all(torch.equal(now[key], tensors[key]) for key in tensors)
    assert not torch.equal(predict(pipe), safe)


@lora
def test_taking_the_tuning_off_gives_back_exactly_the_safe_model_and_then_the_base(
    tuned: Tuned, pipe: StableDiffusionPipeline
) -> None:
    base = predict(pipe)
    add_safety(pipe)
    safe = predict(pipe)
    apply_tuning(pipe, tuned.folder)
    assert not torch.equal(predict(pipe), safe)
    adapters.remove(pipe, "tuning")
    assert torch.equal(predict(pipe), safe)
    adapters.remove(pipe, "safety")
    assert torch.equal(predict(pipe), base)


@pytest.mark.heavy
def test_an_adapter_that_acts_is_merged_where_weights_are_trained(
    pipe: StableDiffusionPipeline, scenes: CaptionedImages, tmp_path: Path
) -> None:
    merged = copy.deepcopy(pipe)
    add_safety(merged)
    adapters.merge(merged)
    add_safety(pipe)
    safe = predict(pipe)
    for name, model in (("merged", merged), ("acting", pipe)):
        finetune(model, scenes, profile("denoiser"), 0, tmp_path / name)
    assert torch.equal(predict(pipe), safe)
    tuned = [load_file(tmp_path / name / "denoiser.safetensors") for name in ("merged", "acting")]
    assert not changed(*tuned)
    apply_tuning(pipe, tmp_path / "acting")
    assert not attached_adapters(pipe.unet)
    assert not changed(tuned[1], weights.copy_state(pipe))


@of_weights
def test_weights_are_not_put_on_a_model_with_other_adapters(
    tuned: Tuned, pipe: StableDiffusionPipeline
) -> None:
    add_safety(pipe)
    with pytest.raises(ValueError, match=r"with the adapters \[\], not with \['safety'\]"):
        apply_tuning(pipe, tuned.folder)


@lora
def test_an_adapter_is_not_put_on_a_model_whose_adapters_are_disabled(
    tuned: Tuned, pipe: StableDiffusionPipeline
) -> None:
    add_safety(pipe)
    pipe.unet.disable_adapters()
    with pytest.raises(ValueError, match="disabled"):
        apply_tuning(pipe, tuned.folder)


def test_a_modular_tuning_is_trained_on_the_base_and_added_to_the_aligned_model(
    tuned: Tuned, pipe: StableDiffusionPipeline
) -> None:
    base, aligned = weights.copy_state(pipe), copy.deepcopy(pipe)
    with torch.no_grad():
        aligned.unet.conv_in.weight += 0.5
    safe = weights.copy_state(aligned)
    apply_tuning(pipe, tuned.folder)
    apply_tuning_delta(aligned, tuned.folder, base)
    for model in (pipe, aligned):
        adapters.merge(model)
    change = weights.copy_state(pipe)
    assert changed(base, change)
    for name, value in weights.copy_state(aligned).items():
        torch.testing.assert_close(value, safe[name] + change[name] - base[name])


# ---- entries that are wrong ------------------------------------------------------------------


def test_a_folder_without_a_record_is_refused(
    base: StableDiffusionPipeline, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"tuning\.json: not a fine-tuning's record"):
        apply_tuning(base, tmp_path)


@pytest.mark.parametrize("record", ["", "[]", '{"format": "other"}'])
def test_another_record_is_refused(
    base: StableDiffusionPipeline, tmp_path: Path, record: str
) -> None:
    (tmp_path / "tuning.json").write_text(record)
    with pytest.raises(UserError, match="fine-tune again"):
        apply_tuning(base, tmp_path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "neither pytorch_lora_weights.safetensors nor denoiser.safetensors"),
        (
            ("pytorch_lora_weights", "denoiser"),
            "both pytorch_lora_weights.safetensors and denoiser.safetensors",
        ),
    ],
)
def test_an_entry_is_either_an_adapter_or_weights(
    base: StableDiffusionPipeline, tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    (tmp_path / trainer.RECORD).write_text('{"format": "spqr-tuning", "merged": []}')
    for name in names:
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match=said):
        apply_tuning(base, tmp_path)
    with pytest.raises(UserError, match=said):
        apply_tuning_delta(base, tmp_path, {})
