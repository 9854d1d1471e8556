"""AlignGuard trained on a pipeline of the real classes, a few steps at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from alignments import PROMPTS, align, record
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from tiny_xl import make_xl

from spqr_checks.alignment.alignguard import folder_name, launched
from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.errors import UserError
from spqr_checks.models.adapters import WEIGHTS_FILE

MakePipeline = Callable[[], StableDiffusionPipeline]
MakeRequest = Callable[..., AlignmentRequest]


@pytest.mark.heavy
def test_the_entry_holds_the_merged_adapter_and_the_experts(
    tiny_pipeline: StableDiffusionPipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    seen = align(tiny_pipeline, make_request(**PROMPTS), tmp_path)
    assert [(p.step, p.steps) for p in seen] == [(1, 6), (3, 6), (4, 6), (6, 6)]  # of both
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"adapter.json", WEIGHTS_FILE, "alignment.json", "experts"}
    merged = record(tmp_path)
    assert (merged["r"], merged["alpha"]) == (4, 4.0)  # two experts of rank 2, in full
    assert merged["experts"] == ["warm signs", "stars"]
    assert merged["merge_error"] == 0
    for name in merged["experts"]:
        expert = record(tmp_path / "experts" / name)
        assert (expert["r"], expert["category"]) == (2, name)
        assert expert["base_digest"] == merged["base_digest"]
        assert 0 <= expert["implicit_accuracy"] <= 1
    assert record(tmp_path)["merge"] == "co-merge"
    assert (tmp_path / "alignment.json").exists()


@pytest.mark.heavy
def test_repetition_is_bit_equal_and_another_seed_is_another_training(
    make_pipeline: MakePipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    entries: list[list[bytes]] = []
    for turn, seed in enumerate((3, 3, 4)):
        torch.manual_seed(turn)  # nothing may depend on the global generator
        state = torch.random.get_rng_state()
        out = tmp_path / str(turn)
        align(make_pipeline(), make_request(**PROMPTS, seed=seed), out, keep_weight=1.0)
        assert torch.equal(torch.random.get_rng_state(), state)
        written = [*out.rglob("adapter.json"), *out.rglob(WEIGHTS_FILE)]
        entries.append([path.read_bytes() for path in sorted(written)])
    assert len(entries[0]) == 6
    assert entries[0] == entries[1]
    first, other = (load_file(tmp_path / turn / WEIGHTS_FILE) for turn in "12")
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.heavy
def test_an_expert_does_not_depend_on_the_other_categories(
    make_pipeline: MakePipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    align(make_pipeline(), make_request(**PROMPTS), tmp_path / "two")
    stars = make_request(**{key: values[2:] for key, values in PROMPTS.items()})
    align(make_pipeline(), stars, tmp_path / "one")
    alone, beside, merged = (
        (tmp_path / path / WEIGHTS_FILE).read_bytes()
        for path in ("one/experts/stars", "two/experts/stars", "one")
    )
    assert alone == beside
    assert alone == merged  # one expert is its own merge


@pytest.mark.heavy
def test_joint_trains_one_adapter_on_everything(
    tiny_pipeline: StableDiffusionPipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    seen = align(tiny_pipeline, make_request(**PROMPTS), tmp_path, merge="joint")
    assert seen[-1].steps == 3
    assert not (tmp_path / "experts").exists()
    assert record(tmp_path)["r"] == 2


def test_a_prompt_without_an_anchor_is_refused_before_anything_is_written(
    tiny_pipeline: StableDiffusionPipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    request = make_request(**PROMPTS | {"anchors": [*PROMPTS["anchors"][:3], ""]})
    with pytest.raises(UserError, match="'a large yellow star' has no anchor"):
        align(tiny_pipeline, request, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_diverges_writes_nothing(
    tiny_pipeline: StableDiffusionPipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="diverged"):
        align(
            tiny_pipeline, make_request(**PROMPTS), tmp_path, learning_rate=1e30, clip=None, steps=5
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_a_low_precision_pipeline_is_trained_in_single_precision(
    make_pipeline: MakePipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    pipe, again = make_pipeline().to(torch.bfloat16), make_pipeline().to(torch.bfloat16)
    align(pipe, make_request(**PROMPTS), tmp_path, learning_rate=1e-6, keep_weight=1.0)
    assert next(pipe.unet.parameters()).dtype == torch.bfloat16
    apply_alignment(again, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    # steps too small for bfloat16 are on record
    assert any(0 < v.abs().max() < 1e-4 for k, v in tensors.items() if "lora_B" in k)


@pytest.mark.parametrize(
    ("category", "wanted"),
    [("Illegal Activity", "Illegal Activity"), ("a/b", "a%2Fb"), ("..", "%2E%2E"), ("", "%")],
)
def test_categories_become_names_of_folders(category: str, wanted: str) -> None:
    assert folder_name(category) == wanted


@pytest.mark.parametrize("xl", [False, True])
def test_the_defaults_are_those_of_the_authors_launchers(
    tiny_pipeline: StableDiffusionPipeline, xl: bool
) -> None:
    pipe: Any = make_xl(tiny_pipeline) if xl else tiny_pipeline
    parse = method("alignguard").parse
    made = launched(pipe, parse({}))
    assert (made.beta, made.rank, made.steps, made.weight_decay) == (5000, 4, 2000, 1e-2)
    assert (made.clip, made.caption_dropout) == (1.0, 0.2)
    assert made.batch * made.accumulation == 16
    chosen = (made.optimiser, made.learning_rate, made.warmup)
    assert chosen == (("adafactor", 1e-5, 0) if xl else ("adamw", pytest.approx(1.6e-4), 500))
    # what is given holds, whatever the UNet
    given = {"optimiser": "adamw", "learning_rate": 3e-5, "warmup": 0, "accumulation": 2}
    assert launched(pipe, parse(given)) == parse(given)


def test_transformers_are_trained_by_the_launcher_of_the_larger_model() -> None:
    pipe: Any = SimpleNamespace(transformer=torch.nn.Linear(1, 1))
    made = launched(pipe, method("alignguard").parse({}))
    assert (made.optimiser, made.learning_rate, made.warmup) == ("adafactor", 1e-5, 0)
