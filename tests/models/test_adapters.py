"""LoRA adapters: attached, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loras import ALPHA, KEY, LAYER, RANK, SAVED, attach, drawn, edit, fill, is_plain
from torch import Tensor
from written_adapters import tensors_of

from spqr_checks.errors import UserError
from spqr_checks.models import adapters
from spqr_checks.models.adapters import WEIGHTS_FILE
from spqr_checks.models.weights import copy_state, weights_digest

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


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


@pytest.mark.heavy
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


@pytest.mark.heavy
def test_a_detached_adapter_does_not_act_and_comes_back_exactly(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    plain = drawn(tiny_pipeline)
    with_safety = attach(tiny_pipeline, "safety")
    adapters.activate(tiny_pipeline.unet, [])
    assert torch.equal(drawn(tiny_pipeline), plain)
    adapters.activate(tiny_pipeline.unet, ["safety"])
    assert torch.equal(drawn(tiny_pipeline), with_safety)


def test_a_new_adapter_refuses_what_makes_no_sense(tiny_pipeline: StableDiffusionPipeline) -> None:
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
    tensors = tensors_of(tmp_path)
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


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, -1.0])
def test_the_scale_multiplies_what_the_adapter_adds(
    tiny_pipeline: StableDiffusionPipeline, entry: Path, scale: float
) -> None:
    adapters.load_adapter(tiny_pipeline, entry, "x", scale)
    layer = tiny_pipeline.unet.get_submodule(LAYER)
    a, b = (tensors_of(entry)[f"{LAYER}.lora_{k}.weight"] for k in "AB")
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
    saved = tensors_of(entry)
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
    ("adapter.json", lambda r: r.pop("alpha"), "field 'alpha' is missing"),
    (
        "adapter.json",
        lambda r: r.update(alpha="8"),
        "field 'alpha': input should be a valid number",
    ),
    (
        "adapter.json",
        lambda r: r.update(alpha=float("inf")),
        "field 'alpha': input should be a finite number",
    ),
    ("adapter.json", lambda r: r.pop("r"), "field 'r' is missing"),
    ("adapter.json", lambda r: r.update(r=True), "field 'r': input should be a valid integer"),
    ("adapter.json", lambda r: r.update(r=RANK * 2), "says rank 8, but .* has shape"),
    ("adapter.json", lambda r: r.pop("target_modules"), "field 'target_modules' is missing"),
    (
        "adapter.json",
        lambda r: r.update(target_modules=[]),
        "field 'target_modules': list should have at least 1",
    ),
    ("adapter.json", lambda r: r.update(target_modules=["fc9"]), "no layer 'fc9'"),
    ("adapter.json", lambda r: r["target_modules"].pop(), r"16 unexpected \("),
    ("adapter.json", lambda r: r["target_modules"].append("ff.net.2"), r"\d missing \("),
    (
        "adapter.json",
        lambda r: r.update(format="lokr"),
        "field 'format': input should be 'peft-lora'",
    ),
    (WEIGHTS_FILE, lambda t: t.pop(SAVED), r"1 missing \(.*attn1.to_q.lora_A"),
    (WEIGHTS_FILE, lambda t: t.update(odd=t[SAVED].clone()), r"1 unexpected \(odd\)"),
    (
        WEIGHTS_FILE,
        lambda t: t.update({SAVED: torch.zeros(RANK, 3)}),
        r"has shape \[4, 3\], this model needs \[4, 16\]. It belongs to another architecture",
    ),
    (WEIGHTS_FILE, lambda t: t[SAVED].fill_(float("nan")), "holds NaN or infinite"),
]


@pytest.mark.heavy
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
    edit(entry / WEIGHTS_FILE, lambda t: t.pop(SAVED))
    with pytest.raises(UserError, match="1 missing"):
        adapters.load_adapter(tiny_pipeline, entry, "x")
    assert torch.equal(drawn(tiny_pipeline), with_safety)
    assert adapters.active_adapters(tiny_pipeline.unet) == ["safety"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("adapter.json", None, "without it the adapter's alpha would be guessed"),
        ("adapter.json", "{", "invalid JSON"),
        ("adapter.json", "[1]", "input should be an object"),
        (WEIGHTS_FILE, None, "cannot be read"),
        (WEIGHTS_FILE, "", "truncated"),
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
