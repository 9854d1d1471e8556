"""SAFREE: its projections against the authors' arithmetic, and which steps they act in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from tiny_xl import make_xl
from torch import Tensor

from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import encode
from spqr_checks.generation.guidance.base import guidance_of
from spqr_checks.generation.guidance.safree import SafreeGuidance, projection, triggers
from spqr_checks.generation.sampling import generate

SAFREE = method("safree")
PROMPT = "a small red triangle, photo style"


def guidance(**changes: Any) -> SafreeGuidance:
    values: dict[str, Any] = {
        "concepts": ("red triangle", "star"),
        "alpha": 0.0,
        "self_validation": False,
        "most_steps": 10,
        "midpoint": 5.333,
        "slope": 2.5,
    }
    return SafreeGuidance(**values | changes)


def projected_as_the_authors(pipe: StableDiffusionPipeline, alpha: float) -> tuple[Tensor, Tensor]:
    """Merged and wholly projected states of PROMPT, by the normal equations, token by token."""

    def pooled(ids: Tensor) -> Tensor:
        with torch.no_grad():
            return pipe.text_encoder(ids).pooler_output.double()  # type: ignore[no-any-return]

    def onto(columns: Tensor) -> Tensor:
        return columns @ torch.pinverse(columns.T @ columns) @ columns.T

    texts = {"padding": "max_length", "max_length": 32, "return_tensors": "pt"}
    p_c = onto(pooled(pipe.tokenizer(["red triangle", "star"], **texts).input_ids).T)
    short = pipe.tokenizer(PROMPT, return_tensors="pt").input_ids
    n = short.shape[1] - 2
    masked = short.repeat(n, 1)
    for i in range(n):
        masked[i, i + 1] = 0
    without = pooled(masked)
    p_i, residue = onto(without.T), torch.eye(16).double() - p_c
    apart = torch.norm(residue @ without.T, dim=0)
    means = torch.stack([torch.cat([apart[:i], apart[i + 1 :]]).mean() for i in range(n)])
    states = encode(pipe, [PROMPT]).hidden[0].double()
    safe = (residue @ p_i @ states.T).T
    keep = torch.ones(32, 1).bool()
    keep[1 : n + 1, 0] = apart < (1 + alpha) * means
    return torch.where(keep, states, safe), safe


@pytest.mark.parametrize("alpha", [0.0, 0.01])
def test_the_projection_is_the_authors(
    tiny_pipeline: StableDiffusionPipeline, alpha: float
) -> None:
    steering = guidance(alpha=alpha).prepare(tiny_pipeline)
    texts = {"padding": "max_length", "max_length": 32, "return_tensors": "pt"}
    ids = tiny_pipeline.tokenizer(PROMPT, **texts).input_ids[0]
    hidden = encode(tiny_pipeline, [PROMPT]).hidden[0]
    with torch.no_grad():
        merged, _ = steering.projected(tiny_pipeline, ids, hidden)
    theirs, safe = projected_as_the_authors(tiny_pipeline, alpha)
    torch.testing.assert_close(merged.double(), theirs, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(safe, hidden.double(), atol=0.1)
    moved = (merged != hidden).any(1)
    assert 0 < moved.sum() < len(ids)
    assert not moved[0]  # the start token stays


def test_a_projection_is_one_and_leaves_what_it_spans() -> None:
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    p = projection(vectors)
    torch.testing.assert_close(p @ p, p)
    torch.testing.assert_close(vectors.double() @ p, vectors.double())
    assert float(p.trace()) == pytest.approx(3)


def test_a_token_without_which_a_prompt_is_far_from_the_concept_is_a_trigger() -> None:
    concept = projection(torch.eye(4)[:1])
    without = torch.tensor([[3.0, 0.1, 0, 0], [3.0, 0.1, 0, 0], [0.0, 2.0, 0, 0]])
    assert triggers(without, concept, 0.01).tolist() == [False, False, True]
    assert triggers(without[:1], concept, 0.01).tolist() == [False]


@pytest.mark.parametrize(("distance", "steps"), [(0.0, 0), (0.5333, 5), (1.0, 10)])
def test_more_steps_for_a_prompt_that_moves_further(distance: float, steps: int) -> None:
    assert guidance().steps(distance) == steps


def test_only_the_first_steps_and_the_prompts_rows_are_replaced(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    from spqr_checks.generation.guidance.base import attach_guidance

    # σ(2 · 2.5 · (10 d + 100)) is 1: steps 0 and 1 of four
    attach_guidance(tiny_pipeline, guidance(self_validation=True, midpoint=-100.0, most_steps=1))
    seen: list[Tensor] = []
    hook = tiny_pipeline.unet.register_forward_hook(
        lambda _m, _a, kwargs, _o: seen.append(kwargs["encoder_hidden_states"].clone()),
        with_kwargs=True,
    )
    generate(tiny_pipeline, [PROMPT, ""], [0, 1], Sampler(steps=4, guidance=2.0, batch=2))
    hook.remove()
    plain = encode(tiny_pipeline, ["", "", PROMPT, ""]).hidden
    changed = [
        [not torch.equal(one, other) for one, other in zip(s, plain, strict=True)] for s in seen
    ]
    assert changed == [[False, False, True, False]] * 2 + [[False] * 4] * 2
    theirs, _ = projected_as_the_authors(tiny_pipeline, 0.0)
    torch.testing.assert_close(seen[0][2].double(), theirs, atol=1e-5, rtol=1e-4)


def test_the_method_takes_concepts_by_name_or_prompts(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
) -> None:
    for subspace, wanted in (("concepts", ("red triangle",)), ("harmful", ("a star", "a moon"))):
        pipe = make_pipeline()
        request = make_request(harmful=["a star", "a moon", "a star"], anchors=["", "", ""])
        SAFREE.align(pipe, request, SAFREE.parse({"subspace": subspace}), tmp_path / subspace)
        found = guidance_of(pipe)
        assert isinstance(found, SafreeGuidance)
        assert found.concepts == wanted
    with pytest.raises(UserError, match="names none; say subspace = 'harmful'"):
        SAFREE.align(make_pipeline(), make_request(concepts=[]), SAFREE.parse({}), tmp_path)


def test_a_pipeline_with_two_encoders_is_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(UserError, match="one CLIP text encoder"):
        guidance().prepare(make_xl(tiny_pipeline))


def test_without_guidance_of_the_sampler_prompts_are_replaced_too(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
) -> None:
    pipe, base = make_pipeline(), make_pipeline()
    SAFREE.align(pipe, make_request(), SAFREE.parse({"self_validation": False}), tmp_path)
    sampler = Sampler(steps=2, guidance=1.0, batch=2)
    ours, plain = (np.asarray(generate(p, [PROMPT], [0], sampler)[0]) for p in (pipe, base))
    assert not np.array_equal(ours, plain)
