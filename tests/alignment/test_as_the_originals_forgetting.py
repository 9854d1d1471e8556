"""SalUn, EraseDiff, Scissorhands: two steps against the authors' arithmetic on equal tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from originals import (
    ANCHORS,
    HARMFUL,
    LR,
    Given,
    Texts,
    assert_equal_but_for_rounding,
    descend,
    trained,
)
from torch import Tensor, nn

from spqr_checks.alignment.erasediff import Bilevel
from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.salun import Saliency
from spqr_checks.alignment.scissorhands import Scissors, drawn_anew, gem_weight
from spqr_checks.errors import UserError
from spqr_checks.models.weights import copy_state


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Both sides are computed on one."""


def losses(student: nn.Module, forget: Any, retain: Any, texts: Texts) -> tuple[Tensor, Tensor]:
    """The retaining and the forgetting loss of one step, as all three of them have it."""
    index, x, t, _ = forget
    concept, pseudo = ([names[i] for i in index.tolist()] for names in (HARMFUL, ANCHORS))
    goal = student(x, t, texts(pseudo)).sample.detach()
    forgotten = nn.MSELoss()(student(x, t, texts(concept)).sample, goal)
    index, x, t, noise = retain
    kept = [ANCHORS[i] for i in index.tolist()]
    return F.mse_loss(student(x, t, texts(kept)).sample, noise), forgotten


def named(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def test_salun_s_mask(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest, texts: Texts
) -> None:
    options = method("salun").parse({"batch": 2, "pool": 4})
    training = Saliency(tiny_pipeline, request_, options, "salun")
    unet = tiny_pipeline.unet.requires_grad_(True)
    state = training.generator.get_state()
    batches = training.noised_in_turn()
    assert sorted(i for index, *_ in batches for i in index.tolist()) == [0, 0, 1, 1]
    training.generator.set_state(state)
    masks = training.masks()
    total = {name: torch.zeros_like(p) for name, p in unet.named_parameters()}
    for index, x, t, noise in batches:
        unet.zero_grad()
        forget = unet(x, t, texts([HARMFUL[i] for i in index.tolist()])).sample
        null = unet(x, t, texts([""] * len(x))).sample
        (-nn.MSELoss()(noise, (1 + 7.5) * forget - 7.5 * null)).backward()
        for name, p in unet.named_parameters():
            total[name] += p.grad
    elements = -torch.cat([gradient.abs().flatten() for gradient in total.values()])
    ranks = torch.argsort(torch.argsort(elements))
    hard = (ranks < int(len(elements) * 0.5)).float()
    ours = torch.cat([mask.flatten() for mask in masks])
    assert ours.sum() == len(elements) // 2
    assert (ours != hard).float().mean() < 1e-3  # gradients that are equal but for rounding


@pytest.mark.heavy
def test_salun_moves_nothing_outside_its_mask(
    tiny_pipeline: StableDiffusionPipeline,
    aligned: Callable[..., Given],
    texts: Texts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = copy.deepcopy(tiny_pipeline.unet)
    seen: list[list[Tensor]] = []
    own = Saliency.masks
    monkeypatch.setattr(Saliency, "masks", lambda self: seen.append(own(self)) or seen[0])
    given = aligned("salun", Saliency, "noisy", pool=4)
    (masks,) = seen
    optimiser = torch.optim.Adam(trained(student, ""), lr=LR)
    for step in range(2):
        retained, forgotten = losses(student, given[2 * step], given[2 * step + 1], texts)
        optimiser.zero_grad()
        (forgotten + 0.1 * retained).backward()
        for p, mask in zip(student.parameters(), masks, strict=True):
            p.grad *= mask
        optimiser.step()
    before = named(copy.deepcopy(student))
    ours = copy_state(tiny_pipeline)
    assert_equal_but_for_rounding(ours, before)


@pytest.mark.heavy
def test_a_masked_weight_never_moves_and_the_others_do(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    request_: AlignmentRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    salun, pipe, seen = method("salun"), make_pipeline(), list[list[Tensor]]()
    before, own = named(make_pipeline().unet), Saliency.masks
    monkeypatch.setattr(Saliency, "masks", lambda self: seen.append(own(self)) or seen[0])
    options = {"steps": 3, "batch": 2, "pool": 2, "learning_rate": LR, "share": 0.25}
    salun.align(pipe, request_, salun.parse(options), tmp_path)
    assert {bool(m.any()) for m in seen[0]} >= {True}
    moved = total = 0
    for (name, after), mask in zip(pipe.unet.named_parameters(), seen[0], strict=True):
        changed = after != before[name]
        assert not changed[mask == 0].any()
        moved, total = moved + int(changed.sum()), total + int(mask.sum())
    assert moved > 0.9 * total


@pytest.mark.heavy
@pytest.mark.parametrize("compat", [False, True])
def test_erasediff(
    tiny_pipeline: StableDiffusionPipeline,
    aligned: Callable[..., Given],
    texts: Texts,
    compat: bool,
) -> None:
    student = copy.deepcopy(tiny_pipeline.unet)
    options: dict[str, Any] = {"pool": 6, "lam": 0.3}
    options |= {"compat": True, "steps": 8, "passes": 2, "pass_steps": 2} if compat else {}
    given = iter(aligned("erasediff", Bilevel, "noisy", **options))
    parts = [n for n, _ in student.named_parameters() if "attn2" not in n]
    parts = [n for n in parts if not n.startswith(("conv_norm_out", "conv_out", "time_embedding"))]
    optimiser = torch.optim.Adam(trained(student, *parts), lr=LR)
    if not compat:
        for _ in range(2):
            retained, forgotten = losses(student, next(given), next(given), texts)
            descend(optimiser, retained + 0.3 * forgotten)
    else:
        start = copy.deepcopy(student.state_dict())
        for _ in range(2):
            for _ in range(2):
                forget = next(given)
                assert forget[0].tolist() == [0, 1]  # always the first batch
                _, forgotten = losses(student, forget, forget, texts)
                descend(optimiser, forgotten)
            student.load_state_dict(start)
            for _ in range(2):
                retained, forgotten = losses(student, next(given), next(given), texts)
                descend(optimiser, retained + 0.3 * forgotten)
    assert next(given, None) is None
    assert_equal_but_for_rounding(copy_state(tiny_pipeline), named(student))


def test_erasediff_s_passes_are_whole_epochs() -> None:
    parse = method("erasediff").parse
    for steps in (96, 128, 200):
        with pytest.raises(UserError, match=rf"{steps} steps end within an epoch .* = 160"):
            parse({"compat": True, "steps": steps})
    assert parse({"compat": True}).steps == 160
    assert parse({"steps": 200}).steps == 200


def test_erasediff_weighs_by_the_gradients_cosine(
    tiny_pipeline: StableDiffusionPipeline, aligned: Callable[..., Given], texts: Texts
) -> None:
    student = copy.deepcopy(tiny_pipeline.unet)
    given = iter(
        aligned("erasediff", Bilevel, "noisy", pool=6, balance="gradients", eta=1.5, trains="all")
    )
    optimiser = torch.optim.Adam(trained(student, ""), lr=LR)
    for _ in range(2):
        forget, retain = given.__next__, given.__next__
        kept, gone = retain(), forget()  # retaining is computed first
        retained, forgotten = losses(student, gone, kept, texts)
        flat = []
        for loss in (retained, forgotten):
            student.zero_grad()
            loss.backward(retain_graph=True)
            flat.append(torch.cat([p.grad.flatten() for p in student.parameters()]))
        lam = max(1.5 - float(F.cosine_similarity(flat[0], flat[1], dim=0)), 0.0)
        assert 0.5 < lam < 2.5
        descend(optimiser, retained + lam * forgotten)
    assert_equal_but_for_rounding(copy_state(tiny_pipeline), named(student))


BLOCK = "up_blocks.0.attentions.1."


@pytest.mark.heavy
def test_scissorhands(
    tiny_pipeline: StableDiffusionPipeline,
    aligned: Callable[..., Given],
    texts: Texts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = copy.deepcopy(tiny_pipeline.unet)
    seen: list[dict[str, Tensor]] = []
    own = Scissors.started

    def started(self: Scissors) -> None:
        own(self)
        seen.append({name: p.clone() for name, p in named(self.student).items()})

    monkeypatch.setattr(Scissors, "started", started)
    options = {"blocks": [BLOCK], "sparsity": 0.8, "draws": 3, "pool": 4}
    given = iter(aligned("scissorhands", Scissors, "noisy", **options))
    grads = [torch.zeros_like(p) for p in student.parameters()]
    for _ in range(3):
        index, x, t, noise = next(given)
        student.zero_grad()
        prompts = texts([HARMFUL[i] for i in index.tolist()])
        nn.MSELoss()(student(x, t, prompts).sample, noise).backward()
        for total, p in zip(grads, student.parameters(), strict=True):
            total += p.grad.abs()
    scores = [(g * p.detach()).abs() for g, p in zip(grads, student.parameters(), strict=True)]
    flat = torch.cat([score.flatten() for score in scores])
    threshold = flat.kthvalue(int(0.8 * len(flat)))[0]
    cut = 0
    for (name, p), score in zip(student.named_parameters(), scores, strict=True):
        fresh = seen[0][name]
        if name.startswith(BLOCK) and "attn1" in name:
            assert torch.equal(fresh[score <= threshold], p[score <= threshold].detach())
            new, bound = fresh[score > threshold], (6 / p[0].numel()) ** 0.5
            assert not torch.equal(new, p[score > threshold].detach()) or not len(new)
            assert (new.abs() <= bound).all() if p.ndim > 1 else (new == 0).all()
            cut += len(new)
        else:
            assert torch.equal(fresh, p.detach())
        p.data.copy_(fresh)
    assert cut > 10
    optimiser = torch.optim.Adam(trained(student, ""), lr=LR)
    for _ in range(2):
        retained, forgotten = losses(student, next(given), next(given), texts)
        descend(optimiser, retained + 0.1 * forgotten)
    assert_equal_but_for_rounding(copy_state(tiny_pipeline), named(student))


def test_what_is_drawn_anew_is_as_kaiming_says() -> None:
    drawn = drawn_anew(torch.empty(200, 50), torch.Generator().manual_seed(0))
    expected = nn.init.kaiming_uniform_(torch.empty(200, 50), a=0, nonlinearity="relu")
    assert drawn.abs().max() <= (6 / 50) ** 0.5
    assert drawn.std() == pytest.approx(float(expected.std()), rel=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_the_projection_is_gem_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gradient, memory, margin = rng.normal(size=40), rng.normal(size=40), 0.5
    v = gem_weight(float(gradient @ memory), float(memory @ memory), margin)
    # the dual: least ½ P v² + (m·g) v with v ≥ margin, looked for on a grid
    grid = np.linspace(margin, 5, 100_001)
    dual = 0.5 * (memory @ memory + 1e-3) * grid**2 + (memory @ gradient) * grid
    assert v == pytest.approx(grid[dual.argmin()], abs=1e-4)
    assert (gradient + v * memory) @ memory > -1e-6


@pytest.mark.heavy
def test_scissorhands_names_the_blocks_that_a_unet_lacks(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest, tmp_path: Path
) -> None:
    scissors = method("scissorhands")
    with pytest.raises(Exception, match="has no self-attention in nowhere; name its blocks"):
        scissors.align(tiny_pipeline, request_, scissors.parse({"blocks": ["nowhere"]}), tmp_path)
    assert list(tmp_path.iterdir()) == []
