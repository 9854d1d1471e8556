"""Adapters that users bring: PEFT folders, diffusers' and kohya's files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from loras import (
    ALPHA,
    LAYER,
    RANK,
    SAVED,
    b_a,
    drawn,
    encoded,
    fill,
    is_plain,
    peft_folder,
)
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.models import adapters
from spqr_checks.models.lora_layers import lora_layers
from spqr_checks.models.weights import copy_state

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def diffusers_file(
    pipe: StableDiffusionPipeline, folder: Path, text: bool = False, metadata: bool = True
) -> tuple[Path, Tensor, Tensor]:
    """What diffusers saves: the file, and what UNet and text encoder give with the adapter."""
    given: dict[str, Any] = {}
    targets = {"unet": adapters.TARGETS} | (
        {"text_encoder": ("q_proj", "out_proj")} if text else {}
    )
    for component, layers in targets.items():
        if not layers:
            continue
        part = getattr(pipe, component)
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(layers))
        inject_adapter_in_model(config, part, "x")
        fill(part, "x")
        given[f"{component}_lora_layers"] = get_peft_model_state_dict(part, adapter_name="x")
        if metadata:
            record = {
                k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()
            }
            given[f"{component}_lora_adapter_metadata"] = record
    outputs, states = drawn(pipe), encoded(pipe)
    pipe.save_lora_weights(folder, **given)
    adapters.remove(pipe, "x")
    return folder / "pytorch_lora_weights.safetensors", outputs, states


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_diffusers_lora_acts_as_before_saving(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path, text: bool, as_folder: bool
) -> None:
    reference = copy_state(tiny_pipeline)
    plain, plain_states = drawn(tiny_pipeline), encoded(tiny_pipeline)
    path, outputs, states = diffusers_file(tiny_pipeline, tmp_path, text)
    assert torch.equal(drawn(tiny_pipeline), plain)
    adapters.load_user_adapter(tiny_pipeline, tmp_path if as_folder else path)
    assert torch.equal(drawn(tiny_pipeline), outputs)
    assert torch.equal(encoded(tiny_pipeline), states)
    assert torch.equal(states, plain_states) is not text
    adapters.remove(tiny_pipeline, "user")
    assert torch.equal(drawn(tiny_pipeline), plain)
    assert torch.equal(encoded(tiny_pipeline), plain_states)
    assert is_plain(tiny_pipeline, reference)


def test_merging_covers_the_text_encoder(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    _, outputs, states = diffusers_file(tiny_pipeline, tmp_path, text=True)
    adapters.load_user_adapter(tiny_pipeline, tmp_path)
    adapters.merge(tiny_pipeline)
    torch.testing.assert_close(drawn(tiny_pipeline), outputs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoded(tiny_pipeline), states, rtol=1e-4, atol=1e-5)


def kohya_file(path: Path, source: Path, alphas: Callable[[str], float | None]) -> None:
    """A diffusers LoRA in kohya's layout, with an alpha beside each layer that has one."""
    tensors: dict[str, Tensor] = {}
    for key, tensor in load_file(source).items():
        layer, _, kind = key.removesuffix(".weight").rpartition(".lora_")
        prefix = "lora_unet_" if layer.startswith("unet.") else "lora_te_text_model_"
        stem = prefix + layer.partition(".")[2].replace(".", "_")
        tensors[f"{stem}.lora_{'down' if kind == 'A' else 'up'}.weight"] = tensor
        if (alpha := alphas(layer)) is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)


@pytest.mark.parametrize(("scale", "text"), [(1.0, False), (0.5, True)])
def test_a_kohya_lora_with_alphas_acts_with_them(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path, scale: float, text: bool
) -> None:
    source, outputs, states = diffusers_file(tiny_pipeline, tmp_path, text)
    path = tmp_path / "kohya.safetensors"
    kohya_file(path, source, lambda _: ALPHA / scale)
    adapters.load_user_adapter(tiny_pipeline, path, scale)
    assert torch.equal(drawn(tiny_pipeline), outputs)
    assert torch.equal(encoded(tiny_pipeline), states)


def test_each_layer_of_a_kohya_lora_has_its_own_alpha(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    source, _, _ = diffusers_file(tiny_pipeline, tmp_path)
    path = tmp_path / "kohya.safetensors"
    kohya_file(path, source, lambda layer: ALPHA if "attn1.to_q" in layer else 1.0)
    adapters.load_user_adapter(tiny_pipeline, path)
    layers = dict(lora_layers(tiny_pipeline.unet))
    assert {name: layer.lora_alpha["user"] for name, layer in layers.items()} == {
        name: ALPHA if name.endswith("attn1.to_q") else 1.0 for name in layers
    }


@pytest.mark.parametrize(
    "metadata", [None, "{", "[]", '{"unet.r": 4}', '{"r": 4, "lora_alpha": 1}']
)
def test_without_alpha_a_diffusers_lora_is_refused(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path, metadata: str | None
) -> None:
    path, _, _ = diffusers_file(tiny_pipeline, tmp_path, metadata=False)
    if metadata is not None:
        save_file(load_file(path), path, metadata={"lora_adapter_metadata": metadata})
    with pytest.raises(UserError, match="alpha is not on record.*would be guessed") as raised:
        adapters.load_user_adapter(tiny_pipeline, path)
    assert str(path) in str(raised.value)


def test_one_layer_without_alpha_is_enough_to_refuse(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    source, _, _ = diffusers_file(tiny_pipeline, tmp_path)
    path = tmp_path / "kohya.safetensors"
    kohya_file(path, source, lambda layer: None if LAYER in layer else ALPHA)
    with pytest.raises(UserError, match="would be guessed"):
        adapters.load_user_adapter(tiny_pipeline, path)


def with_metadata(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    record = {"unet.r": RANK, "unet.lora_alpha": ALPHA, "unet.target_modules": ["to_q", "to_k"]}
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(record)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(SAVED), f"unet.{LAYER} has only one half"),
        (lambda t: t.update(b_a("unet.foo")), "does not fit.*it has no layer for unet.foo\n"),
        (lambda t: t.update(b_a("vae.foo")), r"alpha is not on record for .* \(such as"),
        (lambda t: t.update(b_a("unet.conv_norm_out")), "conv_norm_out is a GroupNorm, not a"),
        (lambda t: t.update({SAVED: torch.zeros(RANK, 3)}), r"attn1.to_q.lora_A.* shape \[4, 3\]"),
        (lambda t: t.update({SAVED: torch.zeros(2, 16)}), "are no halves of one B·A"),
        (lambda t: t[SAVED].fill_(float("nan")), "holds NaN or infinite"),
        (lambda t: t.update({f"unet.{LAYER}.dora_scale": torch.ones(16)}), "no plain LoRA weight"),
        (lambda t: t.update({"unet.conv_in.diff": torch.ones(1)}), "no plain LoRA weight"),
    ],
)
def test_a_diffusers_lora_that_does_not_fit_is_refused_and_leaves_no_trace(
    tiny_pipeline: StableDiffusionPipeline,
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], Any],
    message: str,
) -> None:
    reference = copy_state(tiny_pipeline)
    path, _, _ = diffusers_file(tiny_pipeline, tmp_path)
    with_metadata(path, change)
    before = drawn(tiny_pipeline)
    with pytest.raises(UserError, match=message) as raised:
        adapters.load_user_adapter(tiny_pipeline, path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 2
    assert torch.equal(drawn(tiny_pipeline), before)
    assert is_plain(tiny_pipeline, reference)


def added(pipe: StableDiffusionPipeline, path: Path, alpha: str = "") -> dict[str, Tensor]:
    """What a file adds to each weight of the UNet."""
    before = copy_state(pipe)
    adapters.load_user_adapter(pipe, path, alpha=alpha)
    adapters.merge(pipe)
    after = copy_state(pipe)
    return {k: v - before[k] for k, v in after.items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize(
    ("alpha", "alphas", "scales"),
    [("8", {}, (2.0, 4.0)), ("rank", {}, (1.0, 1.0)), ("8", {2: 3.0}, (2.0, 1.5))],
)
def test_an_alpha_that_is_given_acts_where_none_is_on_record(
    tiny_pipeline: StableDiffusionPipeline,
    tmp_path: Path,
    alpha: str,
    alphas: dict[int, float],
    scales: tuple[float, float],
) -> None:
    tensors = b_a(f"unet.{LAYER}") | {
        key.replace("to_q", "to_k"): 0.1 * tensor[tuple(slice(n) for n in shape)]
        for key, tensor, shape in zip(
            b_a(f"unet.{LAYER}"), b_a("").values(), ((2, 16), (16, 2)), strict=True
        )
    }
    for value in alphas.values():
        tensors[f"unet.{LAYER}.alpha".replace("to_q", "to_k")] = torch.tensor(value)
    save_file(tensors, path := tmp_path / "mixed.safetensors")
    found = added(tiny_pipeline, path, alpha)
    expected = {
        f"{LAYER}.weight": torch.full((16, 16), scales[0] * RANK),
        f"{LAYER}.weight".replace("to_q", "to_k"): torch.full((16, 16), scales[1] * 0.02),
    }
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_alphas_beside_layers_with_diffusers_names_act(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    source, outputs, _ = diffusers_file(tiny_pipeline, tmp_path, metadata=False)
    tensors = load_file(source)
    layers = {key.partition(".lora_")[0] for key in tensors}
    tensors |= {f"{layer}.alpha": torch.tensor(ALPHA) for layer in layers}
    save_file(tensors, source)
    adapters.load_user_adapter(tiny_pipeline, source)
    assert torch.equal(drawn(tiny_pipeline), outputs)


def test_names_of_older_diffusers_are_understood(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    source, outputs, _ = diffusers_file(tiny_pipeline, tmp_path, metadata=False)
    old = {
        re.sub(
            r"\.to_(\w)(?:ut\.0)?\.lora_(A|B)",
            lambda m: (
                f".processor.to_{m[1] if m[1] != 'o' else 'out'}_lora."
                f"{'down' if m[2] == 'A' else 'up'}"
            ),
            key,
        ): tensor
        for key, tensor in load_file(source).items()
    }
    assert all("processor" in key for key in old)
    save_file(old, source)
    adapters.load_user_adapter(tiny_pipeline, source, alpha=str(ALPHA))
    assert torch.equal(drawn(tiny_pipeline), outputs)


def losing(state: dict[str, Tensor]) -> None:
    for half in ("down", "up"):
        state.pop(next(key for key in state if f".{half}." in key))


def halving(state: dict[str, Tensor]) -> None:
    state[next(iter(state))] *= 0.5


def asserting(state: dict[str, Tensor]) -> None:
    assert not state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (losing, r"no layer for lora_unet_\w+.lora_\w+.weight, lora_unet"),
        (halving, r"lora_unet_\w+ would act with another strength"),
        (asserting, "does not fit"),
    ],
)
def test_a_converter_that_loses_or_changes_something_is_noticed(
    tiny_pipeline: StableDiffusionPipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, Tensor]], None],
    message: str,
) -> None:
    reference = copy_state(tiny_pipeline)
    source, _, _ = diffusers_file(tiny_pipeline, tmp_path)
    kohya_file(path := tmp_path / "kohya.safetensors", source, lambda _: ALPHA)
    convert = type(tiny_pipeline).lora_state_dict

    def faulty(*args: Any, **named: Any) -> Any:
        state, alphas = convert(*args, **named)
        change(state)
        return state, alphas

    monkeypatch.setattr(type(tiny_pipeline), "lora_state_dict", faulty)
    with pytest.raises(UserError, match=message) as raised:
        adapters.load_user_adapter(tiny_pipeline, path)
    assert str(path) in str(raised.value)
    assert is_plain(tiny_pipeline, reference)


@pytest.mark.heavy
@pytest.mark.parametrize("change", [{"cross_attention_dim": 8}, {"block_out_channels": (8, 24)}])
def test_a_users_adapter_of_another_architecture_is_refused(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path, change: dict[str, Any]
) -> None:
    path, _, _ = diffusers_file(tiny_pipeline, tmp_path / "diffusers")
    peft_folder(tiny_pipeline, tmp_path / "peft")
    config = dict(tiny_pipeline.unet.config) | change
    tiny_pipeline.unet = UNet2DConditionModel.from_config(config)
    for source in (path, tmp_path / "peft"):
        with pytest.raises(UserError, match="another architecture|made for this architecture"):
            adapters.load_user_adapter(tiny_pipeline, source)


@pytest.mark.heavy
def test_several_user_adapters_act_together_under_names_of_their_own(
    tiny_pipeline: StableDiffusionPipeline, entry: Path, tmp_path: Path
) -> None:
    peft_folder(tiny_pipeline, tmp_path / "peft")
    path, _, _ = diffusers_file(tiny_pipeline, tmp_path / "diffusers", text=True)
    found = [
        adapters.load_user_adapter(tiny_pipeline, source, 0.5)
        for source in (tmp_path / "peft", path, str(entry))
    ]
    assert found == ["user", "user1", "user2"]
    assert adapters.active_adapters(tiny_pipeline.unet) == found
    assert adapters.active_adapters(tiny_pipeline.text_encoder) == ["user1"]
    together = drawn(tiny_pipeline)
    for name in found:
        adapters.remove(tiny_pipeline, name)
        assert not torch.equal(drawn(tiny_pipeline), together)
    assert not any(p.requires_grad for p in tiny_pipeline.unet.parameters())


def test_an_entry_of_this_package_may_be_brought_too(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    adapters.load_adapter(tiny_pipeline, entry, "x", 0.5)
    expected = drawn(tiny_pipeline)
    adapters.remove(tiny_pipeline, "x")
    adapters.load_user_adapter(tiny_pipeline, entry, 0.5)
    assert torch.equal(drawn(tiny_pipeline), expected)


def test_a_source_that_holds_no_adapter_is_refused(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="adapter .*nowhere does not exist"):
        adapters.load_user_adapter(tiny_pipeline, tmp_path / "nowhere")
    with pytest.raises(UserError, match="0 safetensors files and no adapter_config.json"):
        adapters.load_user_adapter(tiny_pipeline, tmp_path)
    for name in ("a", "b"):
        save_file({"w": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match="2 safetensors files and no adapter_config.json"):
        adapters.load_user_adapter(tiny_pipeline, tmp_path)
    with pytest.raises(UserError, match="w is no plain LoRA weight"):
        adapters.load_user_adapter(tiny_pipeline, tmp_path / "a.safetensors")
    save_file({}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="holds no LoRA weights"):
        adapters.load_user_adapter(tiny_pipeline, tmp_path / "a.safetensors")


def test_a_pickled_or_truncated_adapter_is_refused(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    path, _, _ = diffusers_file(tiny_pipeline, tmp_path / "d")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated"):
        adapters.load_user_adapter(tiny_pipeline, path)
    path.rename(path.with_suffix(".bin"))
    for source in (path.parent, path.with_suffix(".bin")):
        with pytest.raises(UserError, match="is a pickle"):
            adapters.load_user_adapter(tiny_pipeline, source)
    peft_folder(tiny_pipeline, tmp_path / "p")
    shutil.move(tmp_path / "p" / "adapter_model.safetensors", tmp_path / "p" / "adapter_model.bin")
    with pytest.raises(UserError, match="is a pickle"):
        adapters.load_user_adapter(tiny_pipeline, tmp_path / "p")
