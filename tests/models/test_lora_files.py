"""What adapters' files say, before a weight is read: refused by header, or understood."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from spqr_checks.errors import UserError
from spqr_checks.models import lora_files
from spqr_checks.settings import load_settings

LAYER = "unet.mid.to_q"
METADATA = {"unet.r": 2, "unet.lora_alpha": 6, "unet.target_modules": ["to_q"]}


def lora(path: Path, alphas: dict[str, float] | None = None, **header: str) -> Path:
    """A file with one layer of rank 2 and one of rank 3."""
    tensors: dict[str, Any] = {}
    for layer, rank in ((LAYER, 2), ("unet.mid.to_k", 3)):
        tensors[f"{layer}.lora_A.weight"] = np.ones((rank, 4), np.float32)
        tensors[f"{layer}.lora_B.weight"] = np.ones((4, rank), np.float32)
    for layer, alpha in (alphas or {}).items():
        tensors[f"{layer}.alpha"] = np.full((), alpha, np.float32)
    save_file(tensors, path, metadata=header or None)
    return path


def with_metadata(path: Path, **changes: Any) -> Path:
    record = METADATA | {f"unet.{key}": value for key, value in changes.items()}
    return lora(path, lora_adapter_metadata=json.dumps(record))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "not use_dora"),
        ({"lora_bias": True}, "not lora_bias"),
        ({"bias": "all"}, "not bias"),
        ({"init_lora_weights": "pissa"}, "not init_lora_weights"),
        ({"init_lora_weights": "olora"}, "not init_lora_weights"),
        ({"modules_to_save": ["conv_in"]}, "not modules_to_save"),
        ({"peft_type": "LOHA"}, "not peft_type LOHA"),
        ({"lora_alpha": 0}, "'lora_alpha': input should be greater than 0"),
        ({"lora_alpha": -4.0}, "'lora_alpha': input should be greater than 0"),
        ({"lora_alpha": float("nan")}, "'lora_alpha': input should be"),
        ({"r": "2"}, "'r': input should be a valid integer"),
        ({"rank_pattern": {"(": 2}}, "no pattern of layer names"),
        ({"alpha_pattern": {"to_q": 0}}, "greater than 0"),
    ],
)
def test_metadata_that_asks_for_more_than_b_a_or_says_nonsense_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = with_metadata(tmp_path / "a.safetensors", **changes)
    with pytest.raises(UserError, match=message) as raised:
        lora_files.read_file(path)
    assert str(path) in str(raised.value)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6} | changes)
    )
    with pytest.raises(UserError, match=message):
        lora_files.read_peft_config(tmp_path / "adapter_config.json")


def test_dora_without_a_rank_is_refused_whatever_alpha_is_given(tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", lora_adapter_metadata='{"unet.use_dora": true}')
    with pytest.raises(UserError, match="not use_dora"):
        lora_files.read_file(path, "rank")


def test_patterns_decide_as_in_peft() -> None:
    given = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": True}
    patterns = {"rank_pattern": {"to_k": 9, "mid.to_q": 1}, "alpha_pattern": {"^to_v": 3.0}}
    config = lora_files.PeftConfig.model_validate(given | patterns)
    layers = ("to_k", "mid.to_k", "mid.to_q", "to_q", "to_v", "mid.to_v")
    assert [config.strength(layer)[0] for layer in layers] == [9, 9, 1, 4, 4, 4]
    # alpha / rank is alpha / √rank with rank-stabilised LoRA
    assert [config.strength(layer)[1] for layer in layers] == [24, 24, 8, 16, 6, 16]


def test_without_alpha_the_refusal_names_the_way_out(tmp_path: Path) -> None:
    path = lora(tmp_path / "a.safetensors", {LAYER: 4.0})
    with pytest.raises(UserError, match="not on record for 1 of 2 layers.*mid.to_k") as raised:
        lora_files.check((str(path),), "")
    assert "--spqr-adapter-alpha N, or rank" in str(raised.value)
    for alpha in ("16", "rank"):
        lora_files.check((str(path),), alpha)


def test_an_alpha_that_no_adapter_needs_is_refused(tmp_path: Path) -> None:
    known = with_metadata(tmp_path / "known.safetensors")
    lora_files.check((str(known),), "")
    with pytest.raises(UserError, match="--spqr-adapter-alpha 16 has no effect"):
        lora_files.check((str(known),), "16")
    unknown = lora(tmp_path / "unknown.safetensors")
    lora_files.check((str(known), str(unknown)), "16")
    with pytest.raises(UserError, match="has no effect"):
        lora_files.check((), "rank")


def test_alpha_on_record_twice_or_of_no_layer_is_refused(tmp_path: Path) -> None:
    record = json.dumps(METADATA)
    path = lora(tmp_path / "a.safetensors", {LAYER: 1.0}, lora_adapter_metadata=record)
    with pytest.raises(UserError, match="alpha is on record twice"):
        lora_files.read_file(path)
    path = lora(tmp_path / "b.safetensors", {"unet.foo": 1.0})
    with pytest.raises(UserError, match="unet.foo.alpha belongs to no layer"):
        lora_files.read_file(path)


@pytest.mark.parametrize(("given", "kept"), [("8", "8"), (8, "8"), (1.5, "1.5"), ("rank", "rank")])
def test_the_alpha_given_is_a_number_or_rank(tmp_path: Path, given: Any, kept: str) -> None:
    assert load_settings(tmp_path, {"adapter_alpha": given}).adapter_alpha == kept


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "x", True])
def test_another_alpha_is_refused(tmp_path: Path, given: Any) -> None:
    with pytest.raises(UserError, match="adapter_alpha.*a number above 0, or rank"):
        load_settings(tmp_path, {"adapter_alpha": given})


FIELDS = st.sampled_from(
    [*("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias", "use_dora"), "x"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.mark.slow
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(FIELDS, JSON, max_size=3), cut=st.none() | st.integers(0, 90))
def test_whatever_metadata_says_the_answer_is_an_error_for_people_or_a_configuration(
    tmp_path: Path, changes: dict[str, Any], cut: int | None
) -> None:
    text = json.dumps(METADATA | {f"unet.{key}": value for key, value in changes.items()})[:cut]
    path = lora(tmp_path / "a.safetensors", lora_adapter_metadata=text)
    folder = tmp_path / "adapter_config.json"
    folder.write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6} | changes)[:cut])
    for read, what in ((lora_files.read_file, path), (lora_files.read_peft_config, folder)):
        with contextlib.suppress(UserError):
            read(what)
