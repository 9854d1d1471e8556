"""Two steps of each method against its authors' arithmetic, written anew, on the same tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    low_rank_copy,
    of_attention,
    trained,
    with_low_rank,
)
from torch import Tensor, nn
from torch.func import functional_call

from spqr_checks.alignment.ca import Ablation
from spqr_checks.alignment.esd import Erasure
from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.sdd import SelfDistillation
from spqr_checks.alignment.training.preference import Preference
from spqr_checks.alignment.training.unet import ADAPTER
from spqr_checks.models import adapters
from spqr_checks.models.weights import copy_state


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Both sides are computed on one."""


@pytest.mark.parametrize("target", ["original", "current", "wider"])
def test_esd(
    tiny_pipeline: StableDiffusionPipeline, aligned: Callable[..., Given], texts: Texts, target: str
) -> None:
    student, frozen = copy.deepcopy(tiny_pipeline.unet), copy.deepcopy(tiny_pipeline.unet)
    options = {"erase_from": "a moon"} if target == "wider" else {}
    options["target"] = "original" if target == "original" else "current"
    given = aligned("esd", Erasure, "noisy", **options)
    optimiser = torch.optim.Adam(trained(student, "attn2"), lr=LR)
    for index, x, t in given:
        concept = [HARMFUL[i] for i in index.tolist()]
        asked = ["a moon"] * 2 if target == "wider" else concept
        with torch.no_grad():
            e_0, e_n, e_p = (
                frozen(x, t, texts(prompts)).sample for prompts in (["", ""], concept, asked)
            )
        goal = e_0 - 1 * (e_n - e_0) if target == "original" else e_p - 2 * (e_n - e_0)
        descend(optimiser, nn.MSELoss()(student(x, t, texts(asked)).sample, goal))
    assert len(given) == 2
    assert_equal_but_for_rounding(copy_state(tiny_pipeline), of_attention(student))


def test_sdd(
    tiny_pipeline: StableDiffusionPipeline, aligned: Callable[..., Given], texts: Texts
) -> None:
    student, average = copy.deepcopy(tiny_pipeline.unet), copy.deepcopy(tiny_pipeline.unet)
    given = aligned("sdd", SelfDistillation, "noisy", ema=0.9)
    optimiser = torch.optim.AdamW(trained(student, "attn2"), lr=LR, weight_decay=1e-4)
    for _, x, t in given:
        with torch.no_grad():
            guess = student(x, t, texts(["", ""])).sample
        asked = student(x, t, texts(["red triangle, star"] * 2)).sample
        descend(optimiser, (guess - asked).square().mean(), clip=1.0)
        for slow, fast in zip(average.parameters(), student.parameters(), strict=True):
            slow.data = 0.9 * slow.data + 0.1 * fast.data
    assert len(given) == 2
    assert_equal_but_for_rounding(copy_state(tiny_pipeline), of_attention(average))


@pytest.mark.parametrize("variant", ["model", "noise"])
def test_concept_ablation(
    tiny_pipeline: StableDiffusionPipeline,
    aligned: Callable[..., Given],
    texts: Texts,
    variant: str,
) -> None:
    student, frozen = copy.deepcopy(tiny_pipeline.unet), copy.deepcopy(tiny_pipeline.unet)
    given = aligned("ca", Ablation, "noisy", variant=variant, pool=4)
    keys_and_values = trained(student, "attn2.to_k", "attn2.to_v")
    optimiser = torch.optim.AdamW(keys_and_values, lr=LR, weight_decay=1e-2)
    for index, x, t, noise in given:
        concept, anchor = ([names[i] for i in index.tolist()] for names in (HARMFUL, ANCHORS))
        with torch.no_grad():
            goal = frozen(x, t, texts(anchor)).sample if variant == "model" else noise
        descend(optimiser, F.mse_loss(student(x, t, texts(concept)).sample, goal))
    assert len(given) == 2
    assert_equal_but_for_rounding(copy_state(tiny_pipeline), of_attention(student))


def low_rank(unet: nn.Module, targets: list[str], rank: int) -> dict[str, nn.Parameter]:
    """The adapter's factors before training, as leaves of a computation of our own."""
    again = copy.deepcopy(unet)
    adapters.add_lora(again, rank, rank, targets, 3, ADAPTER)
    return low_rank_copy(again)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["alignguard", "duo"])
def test_preferences(
    tiny_pipeline: StableDiffusionPipeline, aligned: Callable[..., Given], texts: Texts, name: str
) -> None:
    duo = name == "duo"
    unet = copy.deepcopy(tiny_pipeline.unet).requires_grad_(False)
    targets = [f"attn1.{part}" if duo else part for part in adapters.TARGETS]
    factors = low_rank(unet, targets, 4)
    options = {"rank": 4, "beta": 500.0, "accumulation": 2}
    options |= {} if duo else {"merge": "joint", "warmup": 0}
    seen: list[Preference] = []
    own = Preference.__init__
    with pytest.MonkeyPatch.context() as patch:

        def keep(self: Preference, *given: Any, **named: Any) -> None:
            own(self, *given, **named)
            seen.append(self)

        patch.setattr(Preference, "__init__", keep)
        given: Iterator[Any] = iter(aligned(name, Preference, "margins", True, **options))
    pairs = seen[0].pairs
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    noises = torch.Generator().manual_seed(3 + 1)

    def predicted(act: bool, x: Tensor, t: Tensor, hidden: Tensor) -> Tensor:
        weights = with_low_rank(unet, factors) if act else {}
        return functional_call(unet, weights, (x, t, hidden)).sample  # type: ignore[no-any-return]

    def loss() -> Tensor:
        pick, t, noise, named = next(given)
        z = torch.cat([pairs.winners[pick], pairs.losers[pick]])
        captions = [pairs.captions[i] if n else "" for i, n in zip(pick, named, strict=True)]
        hidden, t, noise = texts(captions).repeat(2, 1, 1), t.repeat(2), noise.repeat(2, 1, 1, 1)
        a = kept[t][:, None, None, None]
        x = a.sqrt() * z + (1 - a).sqrt() * noise
        error, reference = (
            (predicted(act, x, t, hidden) - noise).pow(2).mean(dim=[1, 2, 3]).chunk(2)
            for act in (True, False)
        )
        drift = (error[0] - error[1]) - (reference[0] - reference[1])
        if not duo:
            return -F.logsigmoid(-0.5 * 500 * drift).mean()
        pure = torch.randn(2, 4, 8, 8, generator=noises)
        end, empty = torch.tensor([999, 999]), texts(["", ""])
        prior = (predicted(True, pure, end, empty) - predicted(False, pure, end, empty)).pow(2)
        return -F.logsigmoid(-500 * drift).mean() + 1e6 * 500 / 100 * prior.mean()

    optimiser = torch.optim.AdamW([*factors.values()], lr=LR, weight_decay=1e-2)
    for _ in range(2):
        descend(optimiser, (loss() + loss()) / 2, clip=1.0)
    assert next(given, None) is None
    ours = adapters.adapter_tensors(tiny_pipeline.unet, ADAPTER)
    theirs = {key: factor.detach() for key, factor in factors.items()}
    # DUO's λ is in the millions, and rounding with it
    assert_equal_but_for_rounding(ours, theirs, few=1e-2 if duo else 2e-3)


def test_uce(
    tiny_pipeline: StableDiffusionPipeline,
    request_: AlignmentRequest,
    texts: Texts,
    tmp_path: Path,
) -> None:
    unet, uce = copy.deepcopy(tiny_pipeline.unet), method("uce")
    uce.align(tiny_pipeline, request_, uce.parse({}), tmp_path)

    def last(prompts: list[str]) -> Tensor:
        lengths = [len(tiny_pipeline.tokenizer(prompt).input_ids) for prompt in prompts]
        ends = zip(prompts, lengths, strict=True)
        return torch.stack([texts([p])[0, n - 2] for p, n in ends]).double()

    theirs = {}
    for name, weight in unet.state_dict().items():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            weight = weight.double()
            left, right = 0.5 * weight, 0.5 * torch.eye(16).double()
            for c, guide in zip(last(HARMFUL), last(ANCHORS), strict=True):
                left = left + torch.outer(weight @ guide, c)
                right = right + torch.outer(c, c)
            for c in last(request_.keep):
                left = left + torch.outer(weight @ c, c)
                right = right + torch.outer(c, c)
            theirs[name] = left @ right.inverse()
    assert theirs
    assert_equal_but_for_rounding(copy_state(tiny_pipeline), theirs)
