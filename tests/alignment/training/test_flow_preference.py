"""DPO on transformers: Flow-DPO's loss by hand, its times, and DUO's prior at noise alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from real_classes import sampler
from torch import Tensor

from spqr_checks.alignment.method import transformer_family
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.options import PreferenceOptions
from spqr_checks.alignment.training.pair_images import Pairs
from spqr_checks.alignment.training.preference import Preference
from spqr_checks.alignment.training.preservation import PriorPreservation
from spqr_checks.alignment.training.transformer import TransformerView
from spqr_checks.alignment.training.unet import ADAPTER
from spqr_checks.models import adapters
from spqr_checks.models.pipelines import load_pipeline

KINDS = ("sd3", "flux", "pixart")
CAPTIONS = ["a red triangle", "a small red triangle", "a blue circle"]


@pytest.fixture(scope="module")
def loaded(real_class: Callable[[str], Path]) -> Callable[[str], Any]:
    """Pipelines, each loaded once; not to be changed."""
    return cache(lambda kind: load_pipeline(str(real_class(kind))))


Objective = tuple[Preference, Any]


@pytest.fixture
def objective(
    loaded: Callable[[str], Any], make_request: Callable[..., AlignmentRequest]
) -> Callable[..., Objective]:
    """DPO on made-up pairs, on a pipeline with an adapter that acts."""

    def make(kind: str, acts: bool = True, **options: Any) -> Objective:
        pipe = copy.deepcopy(loaded(kind))
        view = TransformerView(pipe, sampler(kind), transformer_family(pipe, "duo"))
        for parameter in adapters.add_lora(pipe.transformer, 2, 2, view.targets, 0, ADAPTER):
            if acts:
                generator = torch.Generator().manual_seed(1)
                parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        given = {"beta": 100.0, "batch": 4, "caption_dropout": 0.0} | options
        chosen = PreferenceOptions.model_validate(given)
        pairs = Pairs(normal(view.shape, 1), normal(view.shape, 2), CAPTIONS, CAPTIONS)
        return Preference(view, make_request(sampler=sampler(kind)), pairs, chosen), pipe

    return make


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn((3, *shape), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("error", ["native", "epsilon"])
@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_flow_dpo_is_that_of_its_paper(
    objective: Callable[..., Objective], kind: str, error: str
) -> None:
    beta = 2000.0
    made, pipe = objective(kind, error=error, beta=beta)
    view = made.view
    t = torch.tensor([100.0, 500.0, 800.0])
    noise = normal(view.shape, 3)
    found = made.margins(torch.arange(3), t, noise)
    bare = copy.deepcopy(pipe)
    adapters.remove(bare, ADAPTER)
    told = view.encode(CAPTIONS)
    for i, level in enumerate((0.1, 0.5, 0.8)):
        # β_t = β (1 − t)² in the derivation, β as trained
        weight = beta * ((1 - level) ** 2 if error == "epsilon" else 1.0)
        terms = {}
        for side, image in (("w", made.pairs.winners[i]), ("l", made.pairs.losers[i])):
            x = (1 - level) * image + level * noise[i]
            for who, network in (("model", pipe.transformer), ("reference", bare.transformer)):
                v = view.predictor(network, x[None], t[i : i + 1], told[i : i + 1])[0]
                terms[side, who] = ((noise[i] - image - v) ** 2).mean().item()
        inside = (
            -weight
            / 2
            * (
                (terms["w", "model"] - terms["w", "reference"])
                - (terms["l", "model"] - terms["l", "reference"])
            )
        )
        assert found[i].item() == pytest.approx(inside, rel=2e-3, abs=1e-3)
        assert abs(inside) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_start_nothing_is_preferred_and_a_step_prefers_the_winners(
    objective: Callable[..., Objective], kind: str
) -> None:
    made, pipe = objective(kind, acts=False, beta=1.0)
    assert made.loss().item() == pytest.approx(math.log(2), rel=1e-6)
    trained = [p for p in pipe.transformer.parameters() if p.requires_grad]
    assert len(trained) == len(adapters.adapter_tensors(pipe.transformer, ADAPTER))
    schedule = made.view.noiser.objective.schedule
    fixed = torch.arange(3), schedule[len(schedule) // 2].repeat(3), normal(made.view.shape, 3)
    made.margins(*fixed).mean().neg().backward()
    with torch.no_grad():
        for parameter in trained:
            if parameter.grad is not None:
                parameter.sub_(0.05 * parameter.grad / parameter.grad.norm().clamp(min=1e-12))
    assert made.margins(*fixed).mean().item() > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_on_both_streams_and_duo_s_on_the_image_s_own(
    loaded: Callable[[str], Any], kind: str
) -> None:
    pipe = loaded(kind)
    view = TransformerView(pipe, sampler(kind), transformer_family(pipe, "duo"))
    names = [name for name, _ in pipe.transformer.named_modules()]

    def hit(targets: Any) -> set[str]:
        ends = tuple(f".{target}" for target in targets)
        assert all(any(name.endswith(end) for name in names) for end in ends)
        return {name for name in names if name.endswith(ends)}

    every, own = hit(view.targets), hit(view.self_targets)
    text = {"attn2"} if kind == "pixart" else {"add_q_proj", "add_k_proj", "add_v_proj"}
    for part in text:
        assert any(part in name for name in every)
        assert not any(part in name for name in own)
    assert own < every


@pytest.mark.parametrize(
    ("kind", "error"), [("sd3", "native"), ("sd3", "epsilon"), ("pixart", "native")]
)
def test_the_prior_is_that_of_noise_alone_and_acts_whatever_the_error(
    objective: Callable[..., Objective],
    make_request: Callable[..., AlignmentRequest],
    kind: str,
    error: Any,
) -> None:
    made, pipe = objective(kind)
    prior = PriorPreservation(made.view, make_request(), 2, error)
    assert prior.t.tolist() == ([1000.0] * 2 if kind == "sd3" else [999] * 2)
    x = torch.randn((2, *made.view.shape), generator=torch.Generator().manual_seed(4))
    told = made.view.encode(["", ""])
    with torch.no_grad():
        now = made.view.predictor(pipe.transformer, x, prior.t, told)
        adapters.remove(pipe, ADAPTER)
        before = made.view.predictor(pipe.transformer, x, prior.t, told)
    made, _ = objective(kind)
    prior = PriorPreservation(made.view, make_request(), 2, error)
    loss = prior.loss()
    assert loss.item() == pytest.approx((now - before).square().mean().item(), rel=1e-3)
    assert loss.item() > 1e-6
    loss.backward()


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_times_come_from_the_clean_share(
    objective: Callable[..., Objective], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made, _ = objective(kind, batch=2000)
    made.share = 0.75
    seen: list[Tensor] = []

    def margins(pick: Tensor, t: Tensor, *_: Any) -> Tensor:
        seen.append(t)
        return torch.zeros(len(pick))

    monkeypatch.setattr(made, "margins", margins)
    made.loss()
    schedule = made.view.noiser.objective.schedule
    assert bool((schedule.diff() > 0).all())
    assert set(seen[0].tolist()) <= set(schedule[:750].tolist())
    assert float(seen[0].max()) > float(schedule[700])
