"""RECE: its arithmetic against the authors', written anew, and what it does to a pipeline."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from originals import Texts, of_attention
from real_classes import sampler
from torch import Tensor

from spqr_checks.alignment.rece import tails
from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.closed_form import returning
from spqr_checks.alignment.training.transformer import TransformerView
from spqr_checks.alignment.training.views import view_of
from spqr_checks.alignment.uce import text_inputs, text_layers
from spqr_checks.errors import UserError
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import copy_state

RECE = method("rece")


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def solve(
    weight: Tensor,
    pairs: list[tuple[Tensor, Tensor]],
    kept: list[Tensor],
    s: float,
    p: float,
    lam: float,
) -> Tensor:
    """UCE's closed form, one embedding at a time."""
    left, right = lam * weight, lam * torch.eye(weight.shape[1]).double()
    for c, g in pairs:
        left, right = left + s * torch.outer(weight @ g, c), right + s * torch.outer(c, c)
    for k in kept:
        left, right = left + p * torch.outer(weight @ k, k), right + p * torch.outer(k, k)
    return left @ right.inverse()


@pytest.mark.parametrize("prompt", ["red triangle", "hazard"])
def test_rece_as_the_authors_code(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    texts: Texts,
    tmp_path: Path,
    prompt: str,
) -> None:
    weights = {n: w.double() for n, w in of_attention(copy.deepcopy(tiny_pipeline.unet)).items()}
    original = dict(weights)
    request = make_request(concepts=[prompt])
    RECE.align(tiny_pipeline, request, RECE.parse({"epochs": 2}), tmp_path)
    concept, empty = texts([prompt])[0].double(), texts([" "])[0].double()
    last, last_empty = (len(tiny_pipeline.tokenizer(p).input_ids) - 2 for p in (prompt, " "))
    n = 32 - max(last, last_empty)
    pairs = [*zip(concept[last : last + n], empty[last_empty : last_empty + n], strict=True)]
    weights = {name: solve(w, pairs, [], 1, 0, 0.5) for name, w in weights.items()}
    for _ in range(2):
        a = 0.1 * torch.eye(16).double() + sum(w.T @ w for w in weights.values())
        b = sum(w.T @ original[name] for name, w in weights.items())
        back = [a.inverse() @ b @ c for c in concept]
        pairs = [*zip(back, empty, strict=True)]
        weights = {name: solve(w, pairs, [*empty], 1, 0.1, 0.1) for name, w in weights.items()}
    ours = copy_state(tiny_pipeline)
    for name, weight in weights.items():
        torch.testing.assert_close(ours[name].double(), weight, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(weight, original[name], atol=1e-3)


def test_what_returns_is_the_least_squares_solution() -> None:
    now, before = [normal(4, 6, seed=s) for s in (1, 2)], [normal(4, 6, seed=s) for s in (3, 4)]
    concept = normal(2, 5, 6, seed=5)
    back = returning(concept, now, before, 0.3)
    assert back.shape == concept.shape

    def cost(c: Tensor) -> Tensor:
        pairs = zip(now, before, strict=True)
        misses = sum(((c @ w.T - concept @ w0.T) ** 2).sum() for w, w0 in pairs)
        return misses + 0.3 * (c**2).sum()

    assert all(cost(back) < cost(back + 0.01 * normal(2, 5, 6, seed=s)) for s in range(6, 12))


def test_nothing_returns_to_a_matrix_that_was_not_edited() -> None:
    same = [normal(8, 6, seed=1)]
    concept = normal(1, 3, 6, seed=2)
    torch.testing.assert_close(returning(concept, same, same, 1e-12), concept)


def test_tails_pair_the_last_subject_tokens_and_what_follows() -> None:
    old, new = normal(1, 8, 2, seed=1), normal(1, 8, 2, seed=2)
    one, other = tails(old, new, torch.tensor([3]), torch.tensor([1]))
    assert torch.equal(one, old[0, 3:])
    assert torch.equal(other, new[0, 1:6])


def test_anchors_belong_to_harmful_prompts_and_concepts_need_names(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="needs erases = 'harmful'"):
        RECE.align(tiny_pipeline, make_request(), RECE.parse({"guide": "anchors"}), tmp_path)
    with pytest.raises(UserError, match="names none; say erases = 'harmful'"):
        RECE.align(tiny_pipeline, make_request(concepts=[]), RECE.parse({}), tmp_path)
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sd3", "flux", "pixart"])
def test_transformers_are_edited_by_the_same_arithmetic_and_keep_their_biases(
    real_class: Callable[[str], Path],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    kind: str,
) -> None:
    pipe = load_pipeline(str(real_class(kind)))
    request = make_request(concepts=["red triangle"], sampler=sampler(kind))
    view = view_of(pipe, request.sampler, "rece")
    assert isinstance(view, TransformerView)
    layers = text_layers(pipe.transformer, view.family.parts.readers)
    biases = {}
    for path, layer in layers.items():
        if layer.bias is not None:
            layer.bias += 1.0
            biases[path] = layer.bias.clone()
    assert biases
    rows = {text: text_inputs(pipe, view, [text]) for text in ("red triangle", " ")}
    both = text_inputs(pipe, view, ["red triangle", " "], whole=True)
    alone = text_inputs(pipe, view, [" "], whole=True)
    shared = {}
    for path in layers:
        shared.setdefault(path if kind != "pixart" else "", []).append(path)
    expected = {}
    for paths in shared.values():
        original = [layers[path].weight.double() for path in paths]
        concept, empty = (part.double() for part in both[paths[0]])
        kept = [*alone[paths[0]][0].double()]
        pairs = [
            *zip(rows["red triangle"][paths[0]].double(), rows[" "][paths[0]].double(), strict=True)
        ]
        now = [solve(w, pairs, [], 1, 0, 0.5) for w in original]
        a = 0.1 * torch.eye(now[0].shape[1]).double() + sum(w.T @ w for w in now)
        b = sum(w.T @ w0 for w, w0 in zip(now, original, strict=True))
        pairs = [*zip([a.inverse() @ b @ c for c in concept], empty, strict=True)]
        now = [solve(w, pairs, kept, 1, 0.1, 0.1) for w in now]
        expected |= dict(zip(paths, zip(original, now, strict=True), strict=True))
    RECE.align(pipe, request, RECE.parse({"epochs": 1}), tmp_path)
    for path, (before, after) in expected.items():
        found = layers[path].weight.double()
        torch.testing.assert_close(found, after, atol=1e-4, rtol=1e-3)
        assert not torch.allclose(found, before, atol=1e-3)
        if path in biases:
            assert torch.equal(layers[path].bias, biases[path])
