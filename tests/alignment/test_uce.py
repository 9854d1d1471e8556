"""UCE on a pipeline of the real classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.embeddings import token_embeddings
from spqr_checks.models.weights import copy_state

MakeRequest = Callable[..., AlignmentRequest]
MakePipeline = Callable[[], StableDiffusionPipeline]
UCE = method("uce")
EDITED = ("attn2.to_k.weight", "attn2.to_v.weight")


def test_only_keys_and_values_of_cross_attention_change(
    tiny_pipeline: StableDiffusionPipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    before = copy_state(tiny_pipeline)
    UCE.align(tiny_pipeline, make_request(), UCE.parse({}), tmp_path)
    changed = {k for k, v in copy_state(tiny_pipeline).items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if k.endswith(EDITED)}
    assert len(changed) > 4


def test_a_huge_erase_scale_gives_harmful_prompts_the_anchor_s_keys_and_values(
    tiny_pipeline: StableDiffusionPipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    request = make_request(harmful=["a red triangle"], anchors=["a blue star"], keep=[])
    before = copy_state(tiny_pipeline)
    UCE.align(tiny_pipeline, request, UCE.parse({"erase_scale": 1e8}), tmp_path)
    erased = token_embeddings(tiny_pipeline, request.harmful, "last")
    guide = token_embeddings(tiny_pipeline, request.anchors, "last")
    for name, weight in copy_state(tiny_pipeline).items():
        if name.endswith(EDITED):
            wanted = guide @ before[name].T
            torch.testing.assert_close(erased @ weight.T, wanted, atol=1e-3, rtol=1e-3)
            assert not torch.allclose(erased @ before[name].T, wanted, atol=1e-2)


def test_prompts_to_keep_stay_where_they_were_when_they_are_preserved(
    make_pipeline: MakePipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    def moved(preserve_scale: float) -> float:
        pipe, request = make_pipeline(), make_request()
        kept = token_embeddings(pipe, request.keep, "last")
        before = copy_state(pipe)
        options = UCE.parse({"erase_scale": 10, "preserve_scale": preserve_scale})
        UCE.align(pipe, request, options, tmp_path)
        after = copy_state(pipe)
        names = [name for name in before if name.endswith(EDITED)]
        return sum(float((kept @ (after[n] - before[n]).T).norm()) for n in names)

    loose, tight = moved(0), moved(1e6)
    assert tight < 1e-3
    assert loose > 0.1


def test_all_tokens_means_every_word_of_the_prompt(
    make_pipeline: MakePipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    request = make_request(
        harmful=["a red triangle on a white background"],
        anchors=["a blue triangle on a white background"],
        keep=[],
    )

    def distance(tokens: str, position: int) -> float:
        """How far the word at this position is from its anchor's values."""
        pipe = make_pipeline()
        word = token_embeddings(pipe, request.harmful, "all")[position]
        goal = token_embeddings(pipe, request.anchors, "all")[position]
        before = copy_state(pipe)
        UCE.align(pipe, request, UCE.parse({"erase_scale": 1e4, "tokens": tokens}), tmp_path)
        after = copy_state(pipe)
        names = [name for name in before if name.endswith(EDITED)]
        return sum(float((word @ after[n].T - goal @ before[n].T).norm()) for n in names)

    red = 2  # after the start token and "a"
    assert distance("all", red) < 0.5 * distance("last", red)


def test_the_saved_weights_are_the_edited_ones(
    make_pipeline: MakePipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    pipe, again = make_pipeline(), make_pipeline()
    UCE.align(pipe, make_request(), UCE.parse({}), tmp_path)
    apply_alignment(again, tmp_path)
    edited = copy_state(pipe)
    assert all(torch.equal(v, edited[k]) for k, v in copy_state(again).items())


def test_prompts_may_be_given_without_any_to_keep(
    tiny_pipeline: StableDiffusionPipeline, make_request: MakeRequest, tmp_path: Path
) -> None:
    UCE.align(tiny_pipeline, make_request(keep=[]), UCE.parse({}), tmp_path)
    assert (tmp_path / "denoiser.safetensors").exists()
