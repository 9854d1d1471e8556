"""SPM: its loss against the authors', and adapters that act as far as a prompt is about them."""

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
from originals import HARMFUL, Given, Texts, low_rank_copy, with_low_rank
from torch import Tensor, nn
from torch.func import functional_call

from spqr_checks.alignment import spm
from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training import spm_adapter
from spqr_checks.alignment.training.unet import ADAPTER
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import attach_guidance
from spqr_checks.generation.guidance.spm import SpmGuidance
from spqr_checks.generation.sampling import generate
from spqr_checks.models import adapters

SPM = method("spm")
SAMPLER = Sampler(steps=2, guidance=2.0, batch=4)
QUICK = {"steps": 2, "batch": 1, "latents": "pool", "pool": 2, "warmup": 0, "learning_rate": 1e-2}
PROMPTS = ["a red triangle", "a green circle", "a red circle", "a moon"]


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Both sides are computed on one."""


@pytest.mark.heavy
def test_the_loss_is_the_authors(
    tiny_pipeline: StableDiffusionPipeline,
    aligned: Callable[..., Given],
    texts: Texts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unet = copy.deepcopy(tiny_pipeline.unet).requires_grad_(False)
    seen: list[Tensor] = []
    own = spm_adapter.anchors

    def note(*given: Any) -> Tensor:
        seen.append(own(*given))
        return seen[-1]

    monkeypatch.setattr(spm_adapter, "anchors", note)
    start: list[dict[str, nn.Parameter]] = []
    add = spm_adapter.add

    def added(network: nn.Module, *given: Any) -> list[nn.Parameter]:
        parameters = add(network, *given)
        start.append(low_rank_copy(network))
        return parameters

    monkeypatch.setattr(spm_adapter, "add", added)
    options = {"erases": "all", "transport": "none", "latents": "pool", "pool": 2, "warmup": 0}
    given = aligned("spm", spm.Membrane, "noisy", batch=1, schedule="constant", **options)
    (factors,) = start
    layers = [key for key in factors if key.endswith("lora_A.weight")]
    assert len(layers) > 20
    assert all(not factor.any() for key, factor in factors.items() if "lora_B" in key)
    for key in layers:
        bound = factors[key][0].numel() ** -0.5
        assert 0.2 * bound < factors[key].abs().max() <= bound
    optimiser = torch.optim.AdamW([*factors.values()], lr=1e-3, weight_decay=1e-2)
    for (index, x, t), far in zip(given, seen, strict=True):
        concept = texts([HARMFUL[i] for i in index.tolist()])

        def on(z: Tensor, s: Tensor, hidden: Tensor) -> Tensor:
            return functional_call(unet, with_low_rank(unet, factors), (z, s, hidden)).sample

        with torch.no_grad():
            positive, neutral = unet(x, t, concept).sample, unet(x, t, texts([""])).sample
            held = unet(x.repeat(4, 1, 1, 1), t.repeat(4), far).sample
        target = neutral - 1.0 * (positive - neutral)
        erased = F.mse_loss(on(x, t, concept), target)
        anchored = F.mse_loss(on(x.repeat(4, 1, 1, 1), t.repeat(4), far), held)
        optimiser.zero_grad()
        (erased + 1000 * anchored).backward()
        optimiser.step()
    ours = adapters.adapter_tensors(tiny_pipeline.unet, ADAPTER)
    apart = torch.cat([(ours[key] - factors[key]).detach().abs().flatten() for key in factors])
    assert (apart > 1e-5).float().mean() < 1e-2
    assert apart.max() < 2e-3


def test_drawings_are_stopped_after_their_first_step(
    tiny_pipeline: StableDiffusionPipeline, make_request: Callable[..., AlignmentRequest]
) -> None:
    options = SPM.parse({"sampling_steps": 3, "anchors": 0})
    training = spm.Membrane(tiny_pipeline, make_request(), options)
    found = {int(training.noisy()[2][0]) for _ in range(15)}
    tiny_pipeline.scheduler.set_timesteps(3)
    assert found == set(tiny_pipeline.scheduler.timesteps[1:].tolist())


def test_random_anchors_are_as_long_as_the_concept_and_seldom_near_it() -> None:
    target = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    found = spm_adapter.anchors(target, 400, torch.Generator().manual_seed(0))
    assert found.shape == (400, 8, 4)
    stretch = found.flatten(1).norm(dim=1) / target.norm()
    assert stretch.min() >= 0.8
    assert stretch.max() <= 1.2
    cosines = F.cosine_similarity(found.flatten(1), target.flatten()[None], dim=1)
    assert cosines.mean() < -0.01  # of directions alone the mean is 0 ± 0.009


def trained(
    pipe: StableDiffusionPipeline, request: AlignmentRequest, out: Path, **options: Any
) -> SpmGuidance:
    SPM.align(pipe, request, SPM.parse(QUICK | options), out)
    from spqr_checks.generation.guidance.base import guidance_of

    found = guidance_of(pipe)
    assert isinstance(found, SpmGuidance)
    return found


def predicted(pipe: StableDiffusionPipeline) -> list[Tensor]:
    """What the UNet predicts for each prompt at the first step of a drawing."""
    seen: list[Tensor] = []
    hook = pipe.unet.register_forward_hook(lambda _m, _i, output: seen.append(output[0].clone()))
    generate(pipe, PROMPTS, range(4), SAMPLER)
    hook.remove()
    return [*seen[0][4:]]


@pytest.mark.heavy
@pytest.mark.parametrize("transport", ["paper", "compat"])
def test_every_image_has_the_weights_of_its_own_scores(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    transport: str,
) -> None:
    pipe = make_pipeline()
    request = make_request(concepts=["red triangle", "green circle"])
    guidance = trained(pipe, request, tmp_path, transport=transport, rank=2, alpha=1.0)
    found, steering = predicted(pipe), guidance.prepare(make_pipeline())
    factors = guidance.factors
    ids = [pipe.tokenizer(p, padding="max_length", max_length=32).input_ids for p in PROMPTS]
    hidden = torch.stack([pipe.text_encoder(torch.tensor([i]))[0][0] for i in ids])
    scores = steering.scores(hidden.detach(), ids)
    red = [*guidance.concepts].index("red triangle")
    assert float(scores[0, red]) == pytest.approx(1.0)
    assert 0 < float(scores[3, red]) < 1
    for row, image in enumerate(PROMPTS):
        plain = make_pipeline()
        m = scores[row].tolist()
        with torch.no_grad():
            for layer in steering.pairs:
                a = [factors[f"{c}:{layer}.lora_A.weight"].flatten(1) for c in guidance.concepts]
                b = [factors[f"{c}:{layer}.lora_B.weight"].flatten(1) for c in guidance.concepts]
                if transport == "paper":
                    delta = sum(m[k] * b[k] @ a[k] for k in (0, 1))
                else:
                    delta = sum(m[k] * b[k] for k in (0, 1)) @ sum(m[k] * a[k] for k in (0, 1))
                weight = plain.unet.get_submodule(layer).weight
                weight += 0.5 * delta.view_as(weight)
        seen: list[Tensor] = []
        plain.unet.register_forward_hook(lambda _m, _i, o, s=seen: s.append(o[0].clone()))
        generate(plain, PROMPTS, range(4), SAMPLER)
        torch.testing.assert_close(found[row], seen[0][4 + row], atol=1e-5, rtol=1e-4)
        assert image


@pytest.mark.heavy
@pytest.mark.parametrize("transport", ["paper", "compat"])
def test_what_is_read_back_draws_the_same_and_leaves_the_weights(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    transport: str,
) -> None:
    pipe, again, base = make_pipeline(), make_pipeline(), make_pipeline()
    request = make_request(concepts=["red triangle", "green circle", "a moon"])
    trained(pipe, request, tmp_path, transport=transport, learning_rate=0.3, steps=3)
    apply_alignment(again, tmp_path)
    images = [
        np.stack([np.asarray(i) for i in generate(p, PROMPTS, range(4), SAMPLER)])
        for p in (pipe, again, base)
    ]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    weights = zip(pipe.unet.parameters(), base.unet.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)


@pytest.mark.heavy
def test_adapters_of_other_names_than_the_concepts_are_refused(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
) -> None:
    from safetensors.torch import load_file, save_file

    from spqr_checks.generation.guidance.spm import _digest

    guidance = trained(make_pipeline(), make_request(), tmp_path)
    numbered = {  # as they were written before they bore names
        key.replace("red triangle:", "0."): tensor
        for key, tensor in load_file(tmp_path / "spm.safetensors").items()
    }
    save_file(numbered, tmp_path / "spm.safetensors")
    text = (tmp_path / "guidance.json").read_text()
    (tmp_path / "guidance.json").write_text(text.replace(guidance.weights, _digest(numbered)))
    with pytest.raises(UserError, match="not those of its concepts"):
        apply_alignment(make_pipeline(), tmp_path)


@pytest.mark.heavy
def test_a_file_that_is_missing_or_another_is_refused(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
) -> None:
    for folder, seed in (("one", 1), ("two", 2)):
        trained(make_pipeline(), make_request(seed=seed), tmp_path / folder)
    (tmp_path / "two" / "spm.safetensors").replace(tmp_path / "one" / "spm.safetensors")
    for folder, said in (("one", "is not the file that its guidance names"), ("two", "is missing")):
        with pytest.raises(UserError, match=said):
            apply_alignment(make_pipeline(), tmp_path / folder)


def test_adapters_of_another_unet_are_refused(
    make_pipeline: Callable[[], StableDiffusionPipeline],
) -> None:
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    for path, width, said in (("nowhere", 16, "need a layer"), (layer, 5, "do not fit")):
        factors = {f"{path}.lora_A.weight": torch.ones(1, width)}
        factors[f"{path}.lora_B.weight"] = torch.ones(16, 1)
        guidance = SpmGuidance.of(
            {"x": factors}, {"x": ("a",)}, alpha=1.0, transport="paper", metric="both"
        )
        with pytest.raises(UserError, match=said):
            attach_guidance(make_pipeline(), guidance)


def test_without_transport_there_is_one_adapter() -> None:
    with pytest.raises(UserError, match="needs erases = 'all'"):
        SPM.parse({"transport": "none"})
    with pytest.raises(UserError, match="needs erases = 'category' or 'all'"):
        SPM.parse({"guide": "anchors"})
