"""UCE on a pipeline of the real classes; its edit against an independent least-squares solver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.uce import edit, last_tokens
from spqr_checks.generation.conditions import encode
from spqr_checks.models.weights import copy_state

MakeRequest = Callable[..., AlignmentRequest]
MakePipeline = Callable[[], StableDiffusionPipeline]
UCE = method("uce")
EDITED = ("attn2.to_k.weight", "attn2.to_v.weight")
IN, OUT = 6, 4


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
    erased = last_tokens(tiny_pipeline, request.harmful)
    guide = last_tokens(tiny_pipeline, request.anchors)
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
        kept = last_tokens(pipe, request.keep)
        before = copy_state(pipe)
        options = UCE.parse({"erase_scale": 10, "preserve_scale": preserve_scale})
        UCE.align(pipe, request, options, tmp_path)
        after = copy_state(pipe)
        names = [name for name in before if name.endswith(EDITED)]
        return sum(float((kept @ (after[n] - before[n]).T).norm()) for n in names)

    loose, tight = moved(0), moved(1e6)
    assert tight < 1e-3
    assert loose > 0.1


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


def test_the_last_token_is_the_one_before_the_end(tiny_pipeline: StableDiffusionPipeline) -> None:
    hidden = encode(tiny_pipeline, ["red circle", ""]).hidden
    words = len(tiny_pipeline.tokenizer("red circle").input_ids) - 2
    last = last_tokens(tiny_pipeline, ["red circle", ""])
    torch.testing.assert_close(last[0], hidden[0, words])
    torch.testing.assert_close(last[1], hidden[1, 0])  # the start token of the empty prompt


def test_no_prompts_are_no_embeddings(tiny_pipeline: StableDiffusionPipeline) -> None:
    assert last_tokens(tiny_pipeline, []).shape == (0, 16)


def problem(seed: int, erased: int, kept: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    return normal(OUT, IN), normal(erased, IN), normal(erased, IN), normal(kept, IN)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    erased=st.integers(0, 5),
    kept=st.integers(0, 5),
    e=st.floats(0, 10),
    p=st.floats(0, 10),
    lam=st.floats(0.01, 10),
)
def test_the_edit_is_the_least_squares_solution(
    seed: int, erased: int, kept: int, e: float, p: float, lam: float
) -> None:
    w0, c, g, k = problem(seed, erased, kept)
    edited = edit(w0, c, g, k, erase_scale=e, preserve_scale=p, lam=lam)
    # stacked rows sqrt(weight) · (embedding → wanted value), solved by LAPACK's gelsd
    a = np.concatenate([e**0.5 * c.numpy(), p**0.5 * k.numpy(), lam**0.5 * np.eye(IN)])
    b = np.concatenate(
        [e**0.5 * (g @ w0.T).numpy(), p**0.5 * (k @ w0.T).numpy(), lam**0.5 * w0.T.numpy()]
    )
    solution = np.linalg.lstsq(a, b, rcond=None)[0].T
    np.testing.assert_allclose(edited.numpy(), solution, atol=1e-7)


def test_without_anything_to_erase_the_matrix_stays() -> None:
    w0, c, g, k = problem(0, 0, 4)
    edited = edit(w0, c, g, k, erase_scale=1, preserve_scale=1, lam=0.5)
    torch.testing.assert_close(edited, w0)


def test_a_huge_erase_scale_gives_the_guide_s_value() -> None:
    w0, c, g, k = problem(1, 2, 3)
    edited = edit(w0, c, g, k, erase_scale=1e9, preserve_scale=1, lam=0.5)
    torch.testing.assert_close(c @ edited.T, g @ w0.T, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(c @ w0.T, g @ w0.T, atol=0.1)


def test_a_huge_preserve_scale_keeps_the_values_of_prompts_to_keep() -> None:
    w0, c, g, k = problem(2, 2, 3)
    loose = edit(w0, c, g, k, erase_scale=10, preserve_scale=0, lam=0.5)
    tight = edit(w0, c, g, k, erase_scale=10, preserve_scale=1e9, lam=0.5)
    torch.testing.assert_close(k @ tight.T, k @ w0.T, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(k @ loose.T, k @ w0.T, atol=0.1)
    # and the erased prompts still move as far as that allows
    assert (c @ tight.T - g @ w0.T).norm() < (c @ w0.T - g @ w0.T).norm()


def test_a_huge_lam_keeps_the_matrix() -> None:
    w0, c, g, k = problem(3, 2, 2)
    edited = edit(w0, c, g, k, erase_scale=1, preserve_scale=1, lam=1e12)
    torch.testing.assert_close(edited, w0)
