"""LoRA adapters: attached, saved, brought by users, merged and taken off again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.models import adapters
from spqr_checks.models.weights import copy_state, networks, weights_digest

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

RANK, ALPHA = 4, 10.0  # alpha / r is neither 1 nor 2: a lost alpha shows
LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = f"{LAYER}.lora_A.weight"


def drawn(pipe: StableDiffusionPipeline) -> Tensor:
    with torch.no_grad():
        return pipe.unet(torch.full((1, 4, 8, 8), 0.3), 5, torch.ones(1, 4, 16)).sample


def encoded(pipe: StableDiffusionPipeline) -> Tensor:
    with torch.no_grad():
        return pipe.text_encoder(torch.arange(8)[None]).last_hidden_state


def fill(module: Any, name: str, seed: int = 0) -> None:
    """Give an adapter weights that are far from zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters.adapter_tensors(module, name).values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def attach(pipe: StableDiffusionPipeline, name: str, seed: int = 0, rank: int = RANK) -> Tensor:
    """A filled adapter; returns the outputs with it."""
    adapters.add_lora(pipe.unet, rank, ALPHA, adapters.TARGETS, seed, name)
    fill(pipe.unet, name, seed)
    return drawn(pipe)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON or a safetensors file."""
    if path.suffix == ".json":
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))
    else:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})


def is_plain(pipe: StableDiffusionPipeline, reference: dict[str, Tensor]) -> bool:
    """Whether nothing of any adapter is left in the pipeline."""
    state = pipe.unet.state_dict()
    return state.keys() == reference.keys() and not any(
        getattr(part, "peft_config", None) for part in networks(pipe).values()
    )


@pytest.fixture
def entry(tiny_pipeline: StableDiffusionPipeline, tmp_path: Path) -> Path:
    """A saved adapter of the tiny pipeline, which is plain again."""
    attach(tiny_pipeline, "x")
    adapters.save_adapter(tiny_pipeline, tmp_path / "entry", "x", {"trained_on_digest": "abc"})
    adapters.remove(tiny_pipeline, "x")
    return tmp_path / "entry"


# ---- a new adapter ----------------------------------------------------------------------------


def test_a_new_adapter_changes_nothing_and_is_all_that_is_trained(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    before = drawn(tiny_pipeline)
    trainable = adapters.add_lora(tiny_pipeline.unet, RANK, ALPHA, adapters.TARGETS, 0, "lite")
    assert torch.equal(drawn(tiny_pipeline), before)
    asked = [p for p in tiny_pipeline.unet.parameters() if p.requires_grad]
    assert {id(p) for p in asked} == {id(p) for p in trainable}
    # 2 places with attention below and above, self and cross, 4 layers each, A and B
    assert (
        len(trainable)
        == 2
        * len(
            [
                n
                for n, _ in tiny_pipeline.unet.named_modules()
                if n.endswith(adapters.TARGETS) and "base_layer" not in n
            ]
        )
        > 0
    )
    tiny_pipeline.unet(torch.ones(1, 4, 8, 8), 5, torch.ones(1, 4, 16)).sample.sum().backward()
    assert all(p.grad is not None for p in trainable)


def test_a_is_gaussian_with_deviation_one_over_rank_and_b_is_zero(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    adapters.add_lora(tiny_pipeline.unet, 8, ALPHA, adapters.TARGETS, 0, "lite")
    tensors = adapters.adapter_tensors(tiny_pipeline.unet, "lite")
    values = torch.cat([t.flatten() for key, t in tensors.items() if "lora_A" in key])
    assert values.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert values.mean().item() == pytest.approx(0, abs=0.01)
    assert all(not t.any() for key, t in tensors.items() if "lora_B" in key)
    assert all(t.dtype == torch.float32 for t in tensors.values())


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**31))
def test_the_start_depends_on_the_seed_alone(
    tiny_pipeline: StableDiffusionPipeline, seed: int
) -> None:
    """Not on what was drawn before, on other adapters, or on their being attached."""

    def start() -> dict[str, Tensor]:
        adapters.add_lora(tiny_pipeline.unet, RANK, ALPHA, adapters.TARGETS, seed, "new")
        tensors = adapters.adapter_tensors(tiny_pipeline.unet, "new")
        found = {key: tensor.detach().clone() for key, tensor in tensors.items()}
        adapters.remove(tiny_pipeline, "new")
        return found

    alone = start()
    torch.rand(7)
    attach(tiny_pipeline, "safety", seed=seed + 1, rank=2)
    beside = start()
    adapters.remove(tiny_pipeline, "safety")
    assert alone.keys() == beside.keys()
    assert all(torch.equal(alone[key], beside[key]) for key in alone)
    seed += 1
    assert not torch.equal(start()[KEY], alone[KEY])


def test_the_global_random_state_is_left_alone(tiny_pipeline: StableDiffusionPipeline) -> None:
    before = torch.get_rng_state()
    adapters.add_lora(tiny_pipeline.unet, RANK, ALPHA, adapters.TARGETS, 0, "lite")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_second_adapter_acts_beside_the_first_which_is_frozen(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    with_first = attach(tiny_pipeline, "safety")
    trainable = adapters.add_lora(tiny_pipeline.unet, 2, 2.0, ["attn2.to_k"], 1, "lite")
    assert adapters.active_adapters(tiny_pipeline.unet) == ["safety", "lite"]
    assert torch.equal(drawn(tiny_pipeline), with_first)
    asked = [p for p in tiny_pipeline.unet.parameters() if p.requires_grad]
    assert {id(p) for p in asked} == {id(p) for p in trainable}


def test_a_detached_adapter_does_not_act_and_comes_back_exactly(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    plain = drawn(tiny_pipeline)
    with_safety = attach(tiny_pipeline, "safety")
    adapters.activate(tiny_pipeline.unet, [])
    assert torch.equal(drawn(tiny_pipeline), plain)
    adapters.activate(tiny_pipeline.unet, ["safety"])
    assert torch.equal(drawn(tiny_pipeline), with_safety)


def test_a_new_adapter_refuses_what_makes_no_sense(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    unet, reference = tiny_pipeline.unet, copy_state(tiny_pipeline)
    with pytest.raises(UserError, match=r"UNet2DConditionModel has no layer 'to_qq'"):
        adapters.add_lora(unet, RANK, ALPHA, ["to_k", "to_qq"], 0, "lite")
    with pytest.raises(UserError, match="LoRA cannot be put on UNet2DConditionModel"):
        adapters.add_lora(unet, RANK, ALPHA, ["attn1"], 0, "lite")
    for rank, alpha in ((0, 1.0), (4, 0.0), (4, float("nan"))):
        with pytest.raises(UserError, match="needs rank ≥ 1 and alpha > 0"):
            adapters.add_lora(unet, rank, alpha, adapters.TARGETS, 0, "lite")
    assert is_plain(tiny_pipeline, reference)
    adapters.add_lora(unet, RANK, ALPHA, adapters.TARGETS, 0, "lite")
    with pytest.raises(ValueError, match="'lite' is already attached"):
        adapters.add_lora(unet, RANK, ALPHA, adapters.TARGETS, 0, "lite")
    with pytest.raises(ValueError, match="no name for an adapter"):
        adapters.add_lora(unet, RANK, ALPHA, adapters.TARGETS, 0, "lite.0")


# ---- saved and loaded -------------------------------------------------------------------------


def test_a_loaded_adapter_acts_exactly_as_before_saving(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    before = drawn(tiny_pipeline)
    tuned = attach(tiny_pipeline, "x")
    adapters.save_adapter(tiny_pipeline, tmp_path, "x", {})
    adapters.remove(tiny_pipeline, "x")
    adapters.load_adapter(tiny_pipeline, tmp_path, "another-name")
    assert torch.equal(drawn(tiny_pipeline), tuned)
    assert not torch.allclose(tuned, before, atol=1e-2)
    assert not any(p.requires_grad for p in tiny_pipeline.unet.parameters())


def test_saved_files_hold_plain_keys_of_one_adapter_and_all_that_decides_it(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    digest = weights_digest(tiny_pipeline.unet)
    attach(tiny_pipeline, "x")
    attach(tiny_pipeline, "x2", seed=1, rank=2)
    adapters.save_adapter(tiny_pipeline, tmp_path, "x", {"trained_on_digest": "abc", "steps": 3})
    tensors = load_file(tmp_path / "adapter.safetensors")
    assert tensors.keys() == adapters.adapter_tensors(tiny_pipeline.unet, "x").keys()
    assert tensors[KEY].shape == (RANK, 16)
    assert json.loads((tmp_path / "adapter.json").read_text()) == {
        "format": "peft-lora",
        "r": RANK,
        "alpha": ALPHA,
        "target_modules": sorted(adapters.TARGETS),
        "base_digest": digest,
        "trained_on_digest": "abc",
        "steps": 3,
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter.json", "adapter.safetensors"]


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, -1.0])
def test_the_scale_multiplies_what_the_adapter_adds(
    tiny_pipeline: StableDiffusionPipeline, entry: Path, scale: float
) -> None:
    adapters.load_adapter(tiny_pipeline, entry, "x", scale)
    layer = tiny_pipeline.unet.get_submodule(LAYER)
    a, b = (load_file(entry / "adapter.safetensors")[f"{LAYER}.lora_{k}.weight"] for k in "AB")
    inputs = torch.randn(2, 16)
    expected = layer.base_layer(inputs) + scale * (ALPHA / RANK) * (inputs @ a.T @ b.T)
    torch.testing.assert_close(layer(inputs), expected)


def test_a_loaded_adapter_leaves_the_others_acting(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    adapters.load_adapter(tiny_pipeline, entry, "one", 0.5)
    alone = drawn(tiny_pipeline)
    adapters.load_adapter(tiny_pipeline, entry, "two", 0.0)
    assert torch.equal(drawn(tiny_pipeline), alone)
    adapters.remove(tiny_pipeline, "two")
    adapters.load_adapter(tiny_pipeline, entry, "two", 0.5)
    half_and_half = drawn(tiny_pipeline)
    adapters.remove(tiny_pipeline, "one")
    adapters.remove(tiny_pipeline, "two")
    adapters.load_adapter(tiny_pipeline, entry, "whole", 1.0)
    torch.testing.assert_close(drawn(tiny_pipeline), half_and_half)


def test_an_adapter_of_half_precision_weights_stays_in_single_precision(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    tiny_pipeline.unet.to(torch.bfloat16)
    adapters.load_adapter(tiny_pipeline, entry, "x")
    saved = load_file(entry / "adapter.safetensors")
    for key, tensor in adapters.adapter_tensors(tiny_pipeline.unet, "x").items():
        assert torch.equal(tensor, saved[key])
    assert tiny_pipeline.unet.get_submodule(LAYER)(torch.ones(1, 16).bfloat16()).dtype == (
        torch.bfloat16
    )


def test_what_would_be_lost_is_not_saved(
    tiny_pipeline: StableDiffusionPipeline, entry: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="'y' cannot be saved: no such adapter"):
        adapters.save_adapter(tiny_pipeline, out, "y", {})
    adapters.load_adapter(tiny_pipeline, entry, "x", 0.5)
    with pytest.raises(ValueError, match="another scale"):
        adapters.save_adapter(tiny_pipeline, out, "x", {})
    attach(tiny_pipeline, "z")
    with pytest.raises(ValueError, match="metadata must not set alpha"):
        adapters.save_adapter(tiny_pipeline, out, "z", {"alpha": 1})
    with torch.no_grad():
        adapters.adapter_tensors(tiny_pipeline.unet, "z")[KEY][0, 0] = float("nan")
    with pytest.raises(UserError, match="holds NaN"):
        adapters.save_adapter(tiny_pipeline, out, "z", {})
    assert not out.exists()


DAMAGED: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("adapter.json", lambda r: r.pop("alpha"), "alpha must be a number > 0, not None"),
    ("adapter.json", lambda r: r.update(alpha="8"), "alpha must be a number > 0, not '8'"),
    ("adapter.json", lambda r: r.update(alpha=float("inf")), "alpha must be a number > 0"),
    ("adapter.json", lambda r: r.pop("r"), "r must be a whole number ≥ 1, not None"),
    ("adapter.json", lambda r: r.update(r=True), "r must be a whole number ≥ 1, not True"),
    ("adapter.json", lambda r: r.update(r=RANK * 2), "says rank 8, but .* has shape"),
    ("adapter.json", lambda r: r.pop("target_modules"), "target_modules must be a list"),
    ("adapter.json", lambda r: r.update(target_modules=[]), "target_modules must be a list"),
    ("adapter.json", lambda r: r.update(target_modules=["fc9"]), "no layer 'fc9'"),
    ("adapter.json", lambda r: r["target_modules"].pop(), r"16 unexpected \("),
    ("adapter.json", lambda r: r["target_modules"].append("ff.net.2"), r"\d missing \("),
    ("adapter.json", lambda r: r.update(format="lokr"), "format is 'lokr', not 'peft-lora'"),
    ("adapter.safetensors", lambda t: t.pop(KEY), r"1 missing \(.*attn1.to_q.lora_A"),
    ("adapter.safetensors", lambda t: t.update(odd=t[KEY].clone()), r"1 unexpected \(odd\)"),
    (
        "adapter.safetensors",
        lambda t: t.update({KEY: torch.zeros(RANK, 3)}),
        r"has shape \[4, 3\], this model needs \[4, 16\]. It belongs to another architecture",
    ),
    ("adapter.safetensors", lambda t: t[KEY].fill_(float("nan")), "holds NaN or infinite"),
]


@pytest.mark.parametrize(("name", "change", "message"), DAMAGED)
def test_an_entry_that_does_not_fit_is_refused_and_leaves_no_trace(
    tiny_pipeline: StableDiffusionPipeline,
    entry: Path,
    name: str,
    change: Callable[[dict[str, Any]], Any],
    message: str,
) -> None:
    reference = copy_state(tiny_pipeline)
    edit(entry / name, change)
    with pytest.raises(UserError, match=message) as raised:
        adapters.load_adapter(tiny_pipeline, entry, "x")
    assert str(entry) in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 2
    assert is_plain(tiny_pipeline, reference)


def test_a_refused_entry_leaves_those_already_attached_acting(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    with_safety = attach(tiny_pipeline, "safety", seed=5)
    edit(entry / "adapter.safetensors", lambda t: t.pop(KEY))
    with pytest.raises(UserError, match="1 missing"):
        adapters.load_adapter(tiny_pipeline, entry, "x")
    assert torch.equal(drawn(tiny_pipeline), with_safety)
    assert adapters.active_adapters(tiny_pipeline.unet) == ["safety"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("adapter.json", None, "without it the adapter's alpha would be guessed"),
        ("adapter.json", "{", "is not valid JSON"),
        ("adapter.json", "[1]", "holds no JSON object"),
        ("adapter.safetensors", None, "cannot be read"),
        ("adapter.safetensors", "", "truncated"),
    ],
)
def test_a_missing_or_broken_file_is_refused(
    tiny_pipeline: StableDiffusionPipeline, entry: Path, name: str, text: str | None, message: str
) -> None:
    (entry / name).unlink() if text is None else (entry / name).write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        adapters.load_adapter(tiny_pipeline, entry, "x")
    assert str(entry / name) in str(raised.value)


def test_an_adapter_of_another_architecture_is_refused(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    config = dict(tiny_pipeline.unet.config) | {"cross_attention_dim": 8}
    tiny_pipeline.unet = UNet2DConditionModel.from_config(config)
    with pytest.raises(UserError, match="It belongs to another architecture"):
        adapters.load_adapter(tiny_pipeline, entry, "x")


def test_a_name_in_use_and_a_scale_that_is_no_number_are_refused(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    with pytest.raises(UserError, match="scale of an adapter must be a finite number, not nan"):
        adapters.load_adapter(tiny_pipeline, entry, "x", float("nan"))
    adapters.load_adapter(tiny_pipeline, entry, "x")
    tuned = drawn(tiny_pipeline)
    with pytest.raises(ValueError, match="'x' is already attached"):
        adapters.load_adapter(tiny_pipeline, entry, "x")
    assert torch.equal(drawn(tiny_pipeline), tuned)


# ---- removed and merged -----------------------------------------------------------------------


def test_removing_gives_back_exactly_the_outputs_before(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    reference, plain = copy_state(tiny_pipeline), drawn(tiny_pipeline)
    with_one = attach(tiny_pipeline, "one")
    adapters.add_lora(tiny_pipeline.unet, 2, 3.0, ["attn2.to_v", "conv1"], 3, "two")
    fill(tiny_pipeline.unet, "two")
    assert not torch.equal(drawn(tiny_pipeline), with_one)
    adapters.remove(tiny_pipeline, "two")
    assert torch.equal(drawn(tiny_pipeline), with_one)
    assert adapters.active_adapters(tiny_pipeline.unet) == ["one"]
    adapters.remove(tiny_pipeline, "one")
    assert torch.equal(drawn(tiny_pipeline), plain)
    assert is_plain(tiny_pipeline, reference)
    with pytest.raises(ValueError, match="no adapter 'one' is attached"):
        adapters.remove(tiny_pipeline, "one")


def test_merging_keeps_the_outputs_and_leaves_plain_weights(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    reference = copy_state(tiny_pipeline)
    attach(tiny_pipeline, "safety", seed=4)
    adapters.load_adapter(tiny_pipeline, entry, "tuned", 0.5)
    before = drawn(tiny_pipeline)
    adapters.merge(tiny_pipeline)
    torch.testing.assert_close(drawn(tiny_pipeline), before, rtol=1e-4, atol=1e-5)
    assert is_plain(tiny_pipeline, reference)


def test_the_merged_weight_is_w_plus_scale_alpha_over_r_b_a(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    reference = copy_state(tiny_pipeline)[f"{LAYER}.weight"]
    a, b = (load_file(entry / "adapter.safetensors")[f"{LAYER}.lora_{k}.weight"] for k in "AB")
    adapters.load_adapter(tiny_pipeline, entry, "x", 0.7)
    adapters.merge(tiny_pipeline)
    expected = reference.double() + 0.7 * (ALPHA / RANK) * (b.double() @ a.double())
    merged = tiny_pipeline.unet.state_dict()[f"{LAYER}.weight"]
    torch.testing.assert_close(merged.double(), expected, rtol=1e-6, atol=1e-6)


def test_the_order_of_attaching_does_not_matter_to_the_merged_weights(
    tiny_pipeline: StableDiffusionPipeline, entry: Path, tmp_path: Path
) -> None:
    reference = copy_state(tiny_pipeline)
    attach(tiny_pipeline, "y", seed=9, rank=2)
    adapters.save_adapter(tiny_pipeline, tmp_path / "other", "y", {})
    adapters.remove(tiny_pipeline, "y")
    merged = []
    for order in ((entry, tmp_path / "other"), (tmp_path / "other", entry)):
        tiny_pipeline.unet.load_state_dict(reference)
        for index, folder in enumerate(order):
            adapters.load_adapter(tiny_pipeline, folder, f"a{index}")
        adapters.merge(tiny_pipeline)
        merged.append(copy_state(tiny_pipeline))
    for key in reference:
        torch.testing.assert_close(merged[0][key], merged[1][key], rtol=1e-6, atol=1e-6)


def test_merging_drops_what_does_not_act(tiny_pipeline: StableDiffusionPipeline) -> None:
    plain = drawn(tiny_pipeline)
    attach(tiny_pipeline, "safety")
    adapters.activate(tiny_pipeline.unet, [])
    adapters.merge(tiny_pipeline)
    assert torch.equal(drawn(tiny_pipeline), plain)


def test_merging_rounds_once_to_half_precision(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    tiny_pipeline.unet.half()
    reference = copy_state(tiny_pipeline)[f"{LAYER}.weight"]
    for name in ("x", "y", "z"):
        adapters.load_adapter(tiny_pipeline, entry, name, 0.1)
    layer = tiny_pipeline.unet.get_submodule(LAYER)
    total = reference.float()
    for name in ("x", "y", "z"):
        total = total + layer.get_delta_weight(name).detach()
    adapters.merge(tiny_pipeline)
    assert torch.equal(tiny_pipeline.unet.state_dict()[f"{LAYER}.weight"], total.half())


def test_merging_what_is_not_finite_is_refused_and_merges_nothing(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    attach(tiny_pipeline, "x")
    digest = weights_digest(tiny_pipeline.unet)
    last = list(adapters.adapter_tensors(tiny_pipeline.unet, "x").values())[-1]
    with torch.no_grad():
        last[0, 0] = float("inf")
    with pytest.raises(UserError, match="merged weights: .* holds NaN or infinite"):
        adapters.merge(tiny_pipeline)
    assert weights_digest(tiny_pipeline.unet) == digest


# ---- adapters that users bring ----------------------------------------------------------------


def peft_folder(pipe: StableDiffusionPipeline, folder: Path, **changes: Any) -> Tensor:
    """What PEFT itself saves for a wrapped UNet; returns the outputs with the adapter."""
    unet = UNet2DConditionModel.from_config(pipe.unet.config)
    unet.load_state_dict(pipe.unet.state_dict())
    given = {"r": RANK, "lora_alpha": ALPHA, "target_modules": list(adapters.TARGETS)} | changes
    wrapped = get_peft_model(unet, LoraConfig(**given)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        outputs = unet(torch.full((1, 4, 8, 8), 0.3), 5, torch.ones(1, 4, 16)).sample
    wrapped.save_pretrained(folder)
    return outputs


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"to_k": 2}, "alpha_pattern": {"to_v": 7.0}},
        {"target_modules": ["conv1", "attn2.to_q"]},
    ],
)
def test_a_peft_folder_acts_as_in_peft(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path, changes: dict[str, Any]
) -> None:
    before = drawn(tiny_pipeline)
    expected = peft_folder(tiny_pipeline, tmp_path, **changes)
    assert adapters.load_user_adapter(tiny_pipeline, tmp_path) == "user"
    assert torch.equal(drawn(tiny_pipeline), expected)
    assert not torch.allclose(expected, before, atol=1e-2)
    adapters.remove(tiny_pipeline, "user")
    assert torch.equal(drawn(tiny_pipeline), before)


BAD_PEFT: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("adapter_config.json", lambda r: r.pop("lora_alpha"), "r or lora_alpha is missing"),
    ("adapter_config.json", lambda r: r.pop("r"), "r or lora_alpha is missing"),
    ("adapter_config.json", lambda r: r.update(r=RANK * 2), "another architecture"),
    ("adapter_config.json", lambda r: r.update(peft_type="LOHA"), "peft_type is 'LOHA'"),
    ("adapter_config.json", lambda r: r.update(use_dora=True), "not use_dora"),
    ("adapter_config.json", lambda r: r.update(bias="all"), "not bias"),
    ("adapter_config.json", lambda r: r.update(init_lora_weights="pissa"), "init_lora_weights"),
    ("adapter_config.json", lambda r: r.update(modules_to_save=["x"]), "not modules_to_save"),
    ("adapter_config.json", lambda r: r.update(new_trick={"a": 1}), "not new_trick"),
    (
        "adapter_model.safetensors",
        lambda t: t.pop(f"base_model.model.{KEY}"),
        r"1 missing \(down_blocks.*to_q.lora_A.weight\)",
    ),
    (
        "adapter_model.safetensors",
        lambda t: t.update({"base_model.model.foo.lora_A.weight": torch.zeros(RANK, 16)}),
        "1 layers, such as foo",
    ),
    (
        "adapter_model.safetensors",
        lambda t: t.update({f"base_model.model.{LAYER}.lora_magnitude_vector": torch.zeros(1)}),
        "is no plain LoRA weight",
    ),
    (
        "adapter_model.safetensors",
        lambda t: t[f"base_model.model.{KEY}"].fill_(float("inf")),
        "holds NaN or infinite",
    ),
]


@pytest.mark.parametrize(("name", "change", "message"), BAD_PEFT)
def test_a_peft_folder_that_does_not_fit_is_refused_and_leaves_no_trace(
    tiny_pipeline: StableDiffusionPipeline,
    tmp_path: Path,
    name: str,
    change: Callable[[dict[str, Any]], Any],
    message: str,
) -> None:
    reference = copy_state(tiny_pipeline)
    peft_folder(tiny_pipeline, tmp_path)
    edit(tmp_path / name, change)
    with pytest.raises(UserError, match=message) as raised:
        adapters.load_user_adapter(tiny_pipeline, tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 2
    assert is_plain(tiny_pipeline, reference)


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
        part.add_adapter(config, adapter_name="x")
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


def test_a_kohya_lora_whose_alphas_would_get_lost_is_refused(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    source, _, _ = diffusers_file(tiny_pipeline, tmp_path)
    path = tmp_path / "kohya.safetensors"
    kohya_file(path, source, lambda layer: ALPHA if "attn1.to_q" in layer else 1.0)
    with pytest.raises(UserError, match="its alphas differ between layers"):
        adapters.load_user_adapter(tiny_pipeline, path)


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
        (lambda t: t.pop(f"unet.{KEY}"), "does not fit"),
        (lambda t: t.update({"unet.foo.lora_A.weight": torch.zeros(RANK, 16)}), "does not fit"),
        (lambda t: t.update({f"unet.{KEY}": torch.zeros(RANK, 3)}), "does not fit"),
        (lambda t: t[f"unet.{KEY}"].fill_(float("nan")), "holds NaN or infinite"),
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
    with pytest.raises(UserError, match="would be guessed"):
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


def test_an_adapter_works_on_a_transformer(tmp_path: Path) -> None:
    from diffusers import PixArtTransformer2DModel

    class Pipe:
        def __init__(self) -> None:
            torch.manual_seed(0)
            self.transformer = PixArtTransformer2DModel(
                sample_size=8,
                num_layers=1,
                patch_size=2,
                attention_head_dim=4,
                num_attention_heads=2,
                caption_channels=8,
                cross_attention_dim=8,
                use_additional_conditions=False,
            ).eval()
            self.components = {"transformer": self.transformer}

        def __call__(self) -> Tensor:
            with torch.no_grad():
                return self.transformer(
                    torch.ones(1, 4, 8, 8),
                    torch.ones(1, 4, 8),
                    torch.tensor([5]),
                    {"resolution": None, "aspect_ratio": None},
                ).sample

    pipe: Any = Pipe()
    adapters.add_lora(pipe.transformer, RANK, ALPHA, adapters.TARGETS, 0, "lite")
    fill(pipe.transformer, "lite")
    tuned = pipe()
    adapters.save_adapter(pipe, tmp_path, "lite", {})
    again: Any = Pipe()
    plain = again()
    adapters.load_adapter(again, tmp_path, "lite")
    assert torch.equal(again(), tuned)
    assert not torch.equal(tuned, plain)
