"""MACE: masks, matched words and closed forms against the authors' arithmetic, written anew."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from originals import Given, Texts, low_rank_copy, of_attention, with_low_rank
from torch import Tensor, nn
from torch.func import functional_call

from spqr_checks.alignment import mace
from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training import attention
from spqr_checks.alignment.training.unet import ADAPTER
from spqr_checks.errors import UserError
from spqr_checks.models import adapters
from spqr_checks.models.weights import copy_state

MACE = method("mace")
PROMPT, OTHER = "a small red triangle, photo style", "a small blue circle, photo style"


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Both sides are computed on one."""


@pytest.fixture
def request_(make_request: Callable[..., AlignmentRequest]) -> AlignmentRequest:
    return make_request(harmful=[PROMPT, "a red star"], anchors=[OTHER, "a blue star"])


def words(pipe: StableDiffusionPipeline, prompt: str) -> list[str]:
    ids = pipe.tokenizer(prompt, padding="max_length", max_length=32).input_ids
    return pipe.tokenizer.convert_ids_to_tokens(ids)  # type: ignore[no-any-return]


def test_the_concept_is_what_a_prompt_says_otherwise_and_its_end(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    mask = attention.concept_mask(tiny_pipeline, [PROMPT, PROMPT], [OTHER, ""])
    said = words(tiny_pipeline, PROMPT)
    end = tiny_pipeline.tokenizer.eos_token
    concept = [w for w, m in zip(said, mask[0].tolist(), strict=True) if m and w != end]
    assert "".join(concept).replace("</w>", " ").split() == ["red", "triangle"]
    assert all(m for w, m in zip(said, mask[0].tolist(), strict=True) if w == end)
    whole = [w for w, m in zip(said, mask[1].tolist(), strict=True) if m]
    assert len(whole) == len(said) - 1  # all but the start


def test_matched_positions_hold_equal_tokens(tiny_pipeline: StableDiffusionPipeline) -> None:
    prompts, others = [PROMPT, "a red star"], ["a circle, photo style", "a blue star"]
    found = mace.matched(tiny_pipeline, prompts, others).tolist()
    for pair, i, j in found:
        assert words(tiny_pipeline, prompts[pair])[i] == words(tiny_pipeline, others[pair])[j]
    ids = [len(tiny_pipeline.tokenizer(p).input_ids) for p in (prompts[0], others[0])]
    first = [(i, j) for pair, i, j in found if pair == 0]
    assert (0, 0) in first  # the start
    assert (ids[0] - 1, ids[1] - 1) in first  # the end
    assert (ids[0], ids[1]) in first  # padding
    assert len(first) == len(set(first))
    assert len({i for i, _ in first}) == len(first)


def solve(
    w: Tensor, c: Tensor, v: Tensor, k: Tensor, s: float, lam: float, original: Tensor
) -> Tensor:
    left = lam * w + sum(torch.outer(b, a) for a, b in zip(c, v, strict=True))
    right = lam * torch.eye(w.shape[1]).double() + sum(torch.outer(a, a) for a in c)
    left = left + s * sum(torch.outer(original @ a, a) for a in k)
    right = right + s * sum(torch.outer(a, a) for a in k)
    return left @ right.inverse()


def test_the_three_stages_are_the_authors(
    tiny_pipeline: StableDiffusionPipeline,
    request_: AlignmentRequest,
    texts: Texts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = {n: w.double() for n, w in of_attention(copy.deepcopy(tiny_pipeline.unet)).items()}
    learned: list[dict[str, Tensor]] = []
    own = mace.AttentionErasing.learned

    def note(self: Any, *given: Any) -> dict[str, Tensor]:
        learned.append(own(self, *given))
        return learned[-1]

    monkeypatch.setattr(mace.AttentionErasing, "learned", note)
    options = {"steps": 2, "learning_rate": 1e-2, "lam": 0.2, "prior_scale": 0.3}
    parsed = MACE.parse(options | {"fuse_scale": 0.4, "images": 2})
    MACE.align(tiny_pipeline, request_, parsed, tmp_path)
    old, new = texts(request_.harmful).double(), texts(request_.anchors).double()
    found = mace.matched(tiny_pipeline, request_.harmful, request_.anchors)
    c = torch.stack([old[p, i] for p, i, _ in found.tolist()])
    g = torch.stack([new[p, j] for p, _, j in found.tolist()])
    k = texts(request_.keep).double().flatten(0, 1)
    (deltas,) = learned
    # the last layer's values reach no attention
    assert sum(bool(delta.any()) for delta in deltas.values()) == len(deltas) - 1
    ours = copy_state(tiny_pipeline)
    for name, w in weights.items():
        refined = solve(w, c, g @ w.T, k, 0.3, 0.2, w)
        mapped = refined + deltas[name.removesuffix(".weight")].double()
        all_positions = old.flatten(0, 1)
        fused = solve(refined, all_positions, all_positions @ mapped.T, k, 0.4, 0.2, w)
        torch.testing.assert_close(ours[name].double(), fused, atol=1e-4, rtol=1e-3)
        assert not torch.allclose(fused, w, atol=1e-3)


def probabilities(
    unet: nn.Module, weights: dict[str, Tensor], x: Tensor, t: Tensor, hidden: Tensor
) -> list[Tensor]:
    """Softmax of q kᵀ / √d of every cross-attention, from the inputs of its layers."""
    inputs: list[tuple[str, nn.Module, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(
            lambda _m, args, n=name, m=module: inputs.append((n, m, args[0])),
        )
        for name, module in unet.named_modules()
        if name.endswith("attn2")
    ]
    functional_call(unet, weights, (x, t, hidden))
    for hook in hooks:
        hook.remove()
    found = []
    for name, module, states in inputs:
        q = states @ weights.get(f"{name}.to_q.weight", module.to_q.weight).T
        k = hidden @ weights.get(f"{name}.to_k.weight", module.to_k.weight).T
        heads, width = module.heads, q.shape[-1] // module.heads
        q, k = (z.view(len(z), -1, heads, width).transpose(1, 2) for z in (q, k))
        found.append((q @ k.transpose(2, 3) / math.sqrt(width)).softmax(-1))
    return found


def test_a_lora_step_is_the_authors(
    tiny_pipeline: StableDiffusionPipeline,
    request_: AlignmentRequest,
    texts: Texts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: Given = []
    own = mace.AttentionErasing.noisy
    monkeypatch.setattr(
        mace.AttentionErasing, "noisy", lambda self: given.append(own(self)) or given[-1]
    )
    unet = copy.deepcopy(tiny_pipeline.unet).requires_grad_(False)
    options = MACE.parse({"steps": 2, "learning_rate": 1e-3, "images": 2})
    training = mace.AttentionErasing(tiny_pipeline, request_, options)
    training.masks = (torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    adapters.add_lora(unet, 1, 1.0, mace._TARGETS, 3, ADAPTER)
    factors = low_rank_copy(unet)
    plain = copy.deepcopy(tiny_pipeline.unet).requires_grad_(False)
    training.train(lambda _: None, weight_decay=0.01, clip=1.0)
    optimiser = torch.optim.AdamW([*factors.values()], lr=1e-3, weight_decay=0.01)
    tokens = attention.concept_mask(tiny_pipeline, request_.harmful, request_.anchors)
    for place, x, t in given:
        (index,) = training.shown[place].tolist()
        weights = with_low_rank(plain, factors)
        loss = torch.zeros(())
        hidden = texts([request_.harmful[index]])
        for found in probabilities(plain, weights, x, t, hidden):
            side = int(found.shape[2] ** 0.5)
            step = 8 // side
            mask = training.masks[place][:, ::step, ::step].flatten(1)[0]  # nearest
            loss = loss + torch.norm(found[0][:, mask > 0][:, :, tokens[index]])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*factors.values()], 1.0)
        optimiser.step()
    ours = adapters.adapter_tensors(tiny_pipeline.unet, ADAPTER)
    moved = 0.0
    for key, factor in factors.items():
        torch.testing.assert_close(ours[key].detach(), factor.detach(), atol=1e-5, rtol=1e-4)
        if "lora_B" in key:
            moved = max(moved, float(factor.detach().abs().max()))
    assert moved > 1e-4


def test_with_nothing_in_the_masks_the_lora_stays_as_it_was(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest
) -> None:
    training = mace.AttentionErasing(tiny_pipeline, request_, MACE.parse({"steps": 2, "images": 2}))
    training.masks = torch.zeros(2, 8, 8)
    deltas = training.learned("all", lambda _: None)
    assert deltas
    assert not any(delta.any() for delta in deltas.values())


def test_with_no_concept_the_closed_forms_give_the_matrix_back(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    from spqr_checks.alignment.training.closed_form import key_value_layers

    layers = key_value_layers(tiny_pipeline.unet)
    before = copy_state(tiny_pipeline)
    keep = torch.randn(40, 16, generator=torch.Generator().manual_seed(0)).double()
    none = torch.zeros(0, 16)
    mace.refine(layers, none, none, keep.T @ keep, 0.0)
    mace.fuse(
        layers,
        [{name: layer.weight * 0 for name, layer in layers.items()}],
        [none],
        keep.T @ keep,
        0.1,
        {name: layer.weight.detach().clone() for name, layer in layers.items()},
    )
    after = copy_state(tiny_pipeline)
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=1e-5, rtol=1e-4)


def test_too_little_to_solve_for_is_said(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
) -> None:
    request = make_request(harmful=["a star"], anchors=["a moon"], keep=[])
    with pytest.raises(UserError, match="raise the option 'lam', or give more prompts to keep"):
        MACE.align(tiny_pipeline, request, MACE.parse({"steps": 1}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_importance_is_greatest_around_300() -> None:
    odds = mace.importance(1000)
    assert len(odds) == 1000
    assert odds.argmax() in range(299, 302)
    assert odds[299] == pytest.approx(1.0, abs=0.02)
    assert odds[50] < 0.01
    assert (odds >= 0).all()


@pytest.mark.slow
def test_a_segmenter_says_where_to_look(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest, tmp_path: Path
) -> None:
    from transformers import (
        CLIPSegConfig,
        CLIPSegForImageSegmentation,
        CLIPSegProcessor,
        ViTImageProcessor,
    )

    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    text = small | {"num_hidden_layers": 2, "vocab_size": len(tiny_pipeline.tokenizer)}
    ids = {
        name: getattr(tiny_pipeline.tokenizer, name) for name in ("bos_token_id", "eos_token_id")
    }
    vision = small | {"num_hidden_layers": 2, "image_size": 16, "patch_size": 4}
    config = CLIPSegConfig(
        text_config=text | ids | {"max_position_embeddings": 32},
        vision_config=vision,
        projection_dim=16,
        reduce_dim=4,
        extract_layers=[0, 1],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=8,
    )
    torch.manual_seed(0)
    CLIPSegForImageSegmentation(config).save_pretrained(tmp_path / "seg")
    images = ViTImageProcessor(size={"height": 16, "width": 16})
    CLIPSegProcessor(images, tiny_pipeline.tokenizer).save_pretrained(tmp_path / "seg")
    options = MACE.parse({"images": 2, "segmenter": str(tmp_path / "seg")})
    training = mace.AttentionErasing(tiny_pipeline, request_, options)
    assert training.masks is not None
    assert training.masks.shape == (2, 8, 8)
    assert set(training.masks.unique().tolist()) <= {0.0, 1.0}
    with pytest.raises(UserError, match="is no CLIPSeg model"):
        mace.AttentionErasing(
            tiny_pipeline, request_, MACE.parse({"segmenter": str(Path(__file__).parent)})
        )
