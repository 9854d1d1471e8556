"""Families of denoisers: told in training what they are told when their pipelines draw."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from hypothesis import given
from hypothesis import strategies as st
from real_classes import CLASSES, SIZE, VARIANTS

from spqr_checks.errors import UserError
from spqr_checks.finetuning.families import flux
from spqr_checks.finetuning.families.registry import family_of
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import denoiser_of

CAPTION = "a photo of a red cat"
DISTILLED = {"flux", "flux-schnell"}


def _drawn(pipe: Any, guided: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents and times that a pipeline hands to its denoiser in a few steps, and the answers."""
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def note(_: Any, given: tuple[Any, ...], named: dict[str, Any], answer: Any) -> None:
        x = named.get("hidden_states", given[0] if given else named.get("sample"))
        t = named.get("timestep", given[1] if len(given) > 1 else None)
        seen.append((x, torch.as_tensor(t).expand(len(x)), answer[0]))

    hook = denoiser_of(pipe).register_forward_hook(note, with_kwargs=True)
    extra: dict[str, Any] = {"use_resolution_binning": False} if "PixArt" in str(type(pipe)) else {}
    pipe(
        CAPTION,
        num_inference_steps=2,
        guidance_scale=3.0 if guided else 1.0,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
        **extra,
    )
    hook.remove()
    x, t, answer = (torch.cat(parts) for parts in zip(*seen, strict=True))
    return x, t, answer


@pytest.mark.parametrize("name", [*CLASSES, *VARIANTS])
@torch.no_grad()
def test_a_denoiser_is_told_what_it_is_told_when_the_pipeline_draws(
    real_class: Callable[[str], Path], name: str
) -> None:
    pipe = load_pipeline(str(real_class(name)))
    guided = name not in DISTILLED
    x, t, answer = _drawn(pipe, guided)
    # each step: without the caption, then with it
    rows = torch.tensor([0, 2] * (len(x) // 2) if guided else [2] * len(x))
    family = family_of(pipe)
    conditions = family.encode(pipe, ["a green house", CAPTION], (SIZE, SIZE))
    if name in DISTILLED:
        x, t = flux.unpack(x, 8, 8), t * 1000
    predicted = conditions.predict(denoiser_of(pipe), x, t, rows)
    if name in DISTILLED:
        predicted = flux.pack(predicted)
    torch.testing.assert_close(predicted, answer[:, : predicted.shape[1]])
    # the caption matters to the answer, so that the comparison says something
    other = conditions.predict(denoiser_of(pipe), x, t, torch.ones_like(rows))
    assert not torch.allclose(flux.pack(other) if name in DISTILLED else other, predicted)


@torch.no_grad()
def test_pixart_that_wants_to_know_the_size_is_told_as_when_it_draws(
    real_class: Callable[[str], Path],
) -> None:
    pipe = load_pipeline(str(real_class("pixart")))
    torch.manual_seed(0)
    config = {**pipe.transformer.config, "use_additional_conditions": True, "sample_size": 128}
    config |= {"num_attention_heads": 3, "cross_attention_dim": 24}
    network = PixArtTransformer2DModel.from_config(config).eval()
    parts = {name: part for name, part in pipe.components.items() if name != "transformer"}
    alpha = PixArtAlphaPipeline(**parts, transformer=network)
    x, t, answer = _drawn(alpha, guided=True)
    rows = torch.tensor([0, 1] * 2)
    conditions = family_of(alpha).encode(alpha, [CAPTION], (SIZE, SIZE))
    predicted = conditions.predict(network, x, t, rows)
    torch.testing.assert_close(predicted, answer[:, : predicted.shape[1]])
    elsewhere = family_of(alpha).encode(alpha, [CAPTION], (32, SIZE))
    assert not torch.allclose(elsewhere.predict(network, x, t, rows), predicted)


@pytest.mark.parametrize("name", [*CLASSES, *VARIANTS])
def test_the_size_is_what_the_pipeline_draws_unless_told_otherwise(
    real_class: Callable[[str], Path], name: str
) -> None:
    pipe = load_pipeline(str(real_class(name)))
    family = family_of(pipe)
    side = 256 if name in DISTILLED else SIZE
    assert family.own_size(pipe) == (side, side)
    patched = name in {"sd3", "pixart", *DISTILLED}
    assert family.grid(pipe) == (4 if patched else 2)


@given(n=st.integers(1, 3), c=st.integers(1, 4), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_packed_latents_come_back_as_they_were(n: int, c: int, rows: int, columns: int) -> None:
    from diffusers import FluxPipeline

    h, w = 2 * rows, 2 * columns
    latents = torch.arange(n * c * h * w).reshape(n, c, h, w)
    tokens = flux.pack(latents)
    assert tokens.shape == (n, rows * columns, 4 * c)
    assert torch.equal(tokens, FluxPipeline._pack_latents(latents, n, c, h, w))
    assert torch.equal(flux.unpack(tokens, h, w), latents)
    expected = FluxPipeline._prepare_latent_image_ids(n, rows, columns, None, torch.float32)
    assert torch.equal(flux.positions(h, w), expected)


# ---- what is trained -------------------------------------------------------------------------

JOINT = {"add_k_proj", "add_v_proj", "to_add_out"}
CROSS = {"to_k", "to_v", "to_out.0"}


@pytest.mark.parametrize("name", CLASSES)
def test_cross_attention_are_the_layers_through_which_text_enters(
    real_class: Callable[[str], Path], name: str
) -> None:
    pipe = load_pipeline(str(real_class(name)))
    chosen = re.compile(family_of(pipe).cross_attention)
    names = [n for n, _ in denoiser_of(pipe).named_parameters() if chosen.search(n)]
    layers = {n.rsplit(".", 1)[0] for n in names}
    joint = name in {"sd3", "flux"}
    assert {re.split(r"\.attn2?\.", layer)[1] for layer in layers} == (JOINT if joint else CROSS)
    # all of them, and in a UNet and PixArt none of self-attention
    modules = dict(denoiser_of(pipe).named_modules())
    endings = tuple(f"attn.{x}" for x in JOINT) if joint else tuple(f"attn2.{x}" for x in CROSS)
    linear = {n for n, m in modules.items() if isinstance(m, torch.nn.Linear)}
    assert layers == {n for n in linear if n.endswith(endings)}


def test_the_second_self_attention_of_stable_diffusion_3_5_is_no_cross_attention() -> None:
    from diffusers import SD3Transformer2DModel

    from spqr_checks.finetuning.families.stable_diffusion_3 import StableDiffusion3

    network = SD3Transformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=8,
        caption_projection_dim=8,
        pooled_projection_dim=8,
        dual_attention_layers=(0,),
    )
    names = [name for name, _ in network.named_parameters()]
    assert any(".attn2." in name for name in names)
    chosen = [n for n in names if re.search(StableDiffusion3().cross_attention, n)]
    assert chosen
    assert not any(".attn2." in name for name in chosen)


# ---- refusals --------------------------------------------------------------------------------


def _refusal(pipe: object) -> str:
    with pytest.raises(UserError) as caught:
        family_of(pipe).objective(pipe)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "cannot be fine-tuned" in message
    assert "\n" not in message
    return message


def test_a_pipeline_of_no_known_family_is_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    assert "only Stable Diffusion 1, 2, XL, 3 and 3.5, Flux and PixArt" in _refusal(object())
    tiny_pipeline.unet = torch.nn.Linear(1, 1)
    assert "StableDiffusionPipeline cannot" in _refusal(tiny_pipeline)


def test_an_autoencoder_with_means_of_its_own_is_refused(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    tiny_pipeline.vae = AutoencoderKL(norm_num_groups=4, block_out_channels=(4,), latents_mean=[0])
    assert "latents_mean" in _refusal(tiny_pipeline)


def _unet(**changes: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
        cross_attention_dim=16,
        norm_num_groups=4,
        **changes,
    )


def test_an_inpainting_unet_is_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    tiny_pipeline.unet = _unet(in_channels=9)
    assert "takes 9 channels, its latents have 4" in _refusal(tiny_pipeline)


@pytest.mark.parametrize(
    "field", [{"num_class_embeds": 3}, {"time_cond_proj_dim": 8}], ids=lambda f: next(iter(f))
)
def test_a_unet_with_other_conditions_is_refused(
    tiny_pipeline: StableDiffusionPipeline, field: dict[str, int]
) -> None:
    tiny_pipeline.unet = _unet(**field)
    assert next(iter(field)) in _refusal(tiny_pipeline)


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("sd1", FlowMatchEulerDiscreteScheduler()),
        ("sd3", DDIMScheduler()),
        ("flux", DDIMScheduler()),
        ("pixart", FlowMatchEulerDiscreteScheduler()),
    ],
)
def test_a_scheduler_of_another_loss_is_refused(
    real_class: Callable[[str], Path], name: str, scheduler: Any
) -> None:
    pipe = load_pipeline(str(real_class(name)))
    pipe.scheduler = scheduler
    assert type(scheduler).__name__ in _refusal(pipe)


@pytest.mark.parametrize("name", ["sd3", "flux", "pixart"])
def test_a_transformer_that_sees_more_than_latents_is_refused(
    real_class: Callable[[str], Path], name: str
) -> None:
    pipe = load_pipeline(str(real_class(name)))
    channels = pipe.transformer.config.in_channels
    pipe.transformer.register_to_config(in_channels=2 * channels)
    assert "give a text-to-image pipeline" in _refusal(pipe)


def test_outputs_that_are_neither_noise_nor_noise_and_variance_are_refused(
    real_class: Callable[[str], Path],
) -> None:
    pipe = load_pipeline(str(real_class("pixart")))
    pipe.transformer.out_channels = 12
    assert "predicts 12 channels for 4" in _refusal(pipe)


def test_pixart_reads_captions_as_they_are_whatever_is_installed(
    real_class: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe: Any = load_pipeline(str(real_class("pixart")))
    encode, cleaned = type(pipe).encode_prompt, []

    def noted(*args: Any, **options: Any) -> Any:
        cleaned.append(options["clean_caption"])
        return encode(*args, **options)

    monkeypatch.setattr(type(pipe), "encode_prompt", noted)
    family_of(pipe).encode(pipe, [CAPTION], (SIZE, SIZE))
    assert set(cleaned) == {False}
