"""AlignGuard's merges and what its experts learn, on a pipeline of the real classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alignments import PROMPTS, align, prediction, record
from diffusers import StableDiffusionPipeline
from real_classes import sampler

from spqr_checks.alignment.registry import apply_alignment
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training import low_rank
from spqr_checks.alignment.training.low_rank import Lora
from spqr_checks.alignment.training.merging import merge
from spqr_checks.alignment.training.options import PreferenceOptions
from spqr_checks.alignment.training.pair_images import choose_each, safety_pairs
from spqr_checks.alignment.training.preference import Preference
from spqr_checks.alignment.training.views import UNetView
from spqr_checks.choices import Sampler
from spqr_checks.generation.conditions import encode
from spqr_checks.models import adapters
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import copy_state

MakePipeline = Callable[[], StableDiffusionPipeline]
MakeRequest = Callable[..., AlignmentRequest]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "options",
    [
        {"merge": "co-merge", "granularity": "factor_rows", "statistic": "mean"},
        {"merge": "co-merge", "granularity": "entry"},
        {"merge": "co-merge", "truncate": 1},
        {"merge": "ties", "truncate": 3, "pairing": "both", "pairs": 3, "error": "epsilon"},
        {"merge": "joint", "truncate": 1},
        {"merge": "regmean", "regmean_keep": 0.5, "truncate": 3},
    ],
)
def test_what_is_written_predicts_what_the_aligned_pipeline_does(
    make_pipeline: MakePipeline, make_request: MakeRequest, tmp_path: Path, options: dict[str, Any]
) -> None:
    pipe, again = make_pipeline(), make_pipeline()
    align(pipe, make_request(**PROMPTS), tmp_path, **options)
    apply_alignment(again, tmp_path)
    torch.testing.assert_close(prediction(again), prediction(pipe), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(prediction(again), prediction(make_pipeline()), atol=1e-4)
    if "truncate" in options:
        assert record(tmp_path)["r"] == options["truncate"]


@pytest.mark.heavy
def test_a_merge_can_be_redone_from_the_experts(
    make_pipeline: MakePipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    align(make_pipeline(), make_request(**PROMPTS), tmp_path, merge="average")

    def load(folder: Path) -> Lora:
        pipe = make_pipeline()
        adapters.load_adapter(pipe, folder, "x")
        return low_rank.read(pipe.unet, "x")

    experts = [load(tmp_path / "experts" / name) for name in ("warm signs", "stars")]
    merged, again = load(tmp_path), merge(experts, "average").lora
    for layer in merged.factors:
        assert torch.equal(merged.delta(layer), again.delta(layer))
        assert merged.delta(layer).any()


@pytest.mark.trains
def test_an_expert_learns_to_prefer_the_winners(
    make_pipeline: MakePipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    pipe = make_pipeline()
    # a network without training hears its prompts only when they are shouted
    request = make_request(**PROMPTS, sampler=Sampler(steps=2, guidance=100.0, batch=4))
    view = UNetView(pipe, request.sampler)
    pairs = safety_pairs(view, request, choose_each(request, 2), "unsafe_prompt")
    options = {"steps": 40, "batch": 8, "pairs": 2, "learning_rate": 2e-2, "rank": 4}
    align(pipe, request, tmp_path, merge="joint", **options)
    judge = Preference(view, request, pairs, PreferenceOptions())
    generator = torch.Generator().manual_seed(99)  # noise that training has not seen
    n = 200
    margins = judge.margins(
        torch.arange(n) % len(pairs),
        torch.randint(0, 1000, (n,), generator=generator),
        torch.randn(n, 4, 8, 8, generator=generator),
    )
    assert float((margins > 0).float().mean()) > 0.65
    assert record(tmp_path)["implicit_accuracy"][0] > 0.65


@pytest.mark.trains
def test_preservation_holds_prompts_to_keep(
    make_pipeline: MakePipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    hidden = encode(make_pipeline(), make_request().keep).hidden

    def moved(keep_weight: float) -> float:
        pipe = make_pipeline()
        before = prediction(pipe, hidden)
        options = {"steps": 20, "batch": 4, "keep_weight": keep_weight}
        align(pipe, make_request(**PROMPTS), tmp_path, merge="joint", **options)
        return float((prediction(pipe, hidden) - before).norm())

    assert moved(1e4) < 0.7 * moved(0.0)


@pytest.mark.trains
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sd3", {"merge": "co-merge", "statistic": "mean", "granularity": "matrix"}),
        ("flux", {"merge": "regmean", "truncate": 3}),
        ("pixart", {"merge": "ties"}),
    ],
)
def test_transformers_experts_are_merged_on_all_their_attention(
    real_class: Callable[[str], Path],
    make_request: MakeRequest,
    tmp_path: Path,
    kind: str,
    options: dict[str, Any],
) -> None:
    pipe, again = (load_pipeline(str(real_class(kind))) for _ in range(2))
    request = make_request(**PROMPTS, sampler=sampler(kind))
    align(pipe, request, tmp_path, pairs=1, **options)
    assert record(tmp_path)["experts"] == ["warm signs", "stars"]
    merged = low_rank.read(pipe.transformer, "alignment")
    joint = any("add_k_proj" in layer for layer in merged.factors)
    assert joint == (kind != "pixart")
    assert all(bool(merged.delta(layer).isfinite().all()) for layer in merged.factors)
    apply_alignment(again, tmp_path)
    adapters.merge(pipe)
    ours, theirs = (copy_state(one) for one in (pipe, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    base = copy_state(load_pipeline(str(real_class(kind))))
    moved = {name for name in base if not torch.equal(base[name], ours[name])}
    assert moved <= {f"{layer}.weight" for layer in merged.factors}
    assert moved
