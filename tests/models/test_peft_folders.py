"""PEFT folders that users bring: what they do, and every way in which they are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from loras import KEY, LAYER, RANK, b_a, drawn, edit, is_plain, peft_folder

from spqr_checks.errors import UserError
from spqr_checks.models import adapters
from spqr_checks.models.weights import copy_state

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


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
    ("adapter_config.json", lambda r: r.pop("lora_alpha"), "'lora_alpha' is missing"),
    ("adapter_config.json", lambda r: r.pop("r"), "field 'r' is missing"),
    ("adapter_config.json", lambda r: r.update(r=RANK * 2), "needs A and B of rank 8, but"),
    ("adapter_config.json", lambda r: r.update(peft_type="LOHA"), "not peft_type LOHA"),
    ("adapter_config.json", lambda r: r.update(use_dora=True), "not use_dora"),
    ("adapter_config.json", lambda r: r.update(bias="all"), "not bias"),
    ("adapter_config.json", lambda r: r.update(init_lora_weights="pissa"), "init_lora_weights"),
    ("adapter_config.json", lambda r: r.update(modules_to_save=["x"]), "not modules_to_save"),
    ("adapter_config.json", lambda r: r.update(new_trick={"a": 1}), "not new_trick"),
    (
        "adapter_model.safetensors",
        lambda t: t.pop(f"base_model.model.{KEY}"),
        r"to_q needs A and B of rank 4, but there is {'B': \[16, 4\]}",
    ),
    (
        "adapter_model.safetensors",
        lambda t: t.update(b_a("base_model.model.foo")),
        "it has no layer for foo\n",
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


@pytest.mark.heavy
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
