"""Pipelines of the classes in use, with small random weights and tokenizers made on the spot.

Every class, scheduler and kind of text encoder is that of the published model; only the sizes are
small. Latents are 8×8 for images of 16×16 pixels, which Flux has to be asked for: whatever its
weights, it draws 128×128 latents by default. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DiffusionPipeline
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

CLASSES = ("sd1", "sd2", "sdxl", "sd3", "flux", "pixart")
VARIANTS = ("flux-schnell",)
"""Built as the others are; Flux without an input for guidance."""
SIZE = 16
"""Height and width of the images, in pixels."""
SMALL: dict[str, Any] = {
    "preset": "none",
    "prompts": ["miniature"],
    "concepts": ["hazard"],
    "languages": ["en"],
    "domains": ["photo"],
    "judge": "classifier=miniature:classifier",
    "judge_threshold": 1e-9,  # random weights draw no concept; so every image counts as one
    "clip": "miniature:clip",
    "reference": "miniature:reference",
    "datasets": ["miniature:stripes"],
    "profiles": ["lite"],
    "mode": "fixed",
    "images": 4,
    "images_lookalike": 4,
    "images_benign": 4,
    "images_gain": 4,
    "images_reference": 8,
    "dataset_limit": 4,
}
SMALL_TABLES = f"""
[tool.spqr.thresholds]
positive_control = 0.05
ceiling_control = 0.05
[tool.spqr.sampler]
steps = 2
guidance = 3.0
height = {SIZE}
width = {SIZE}
batch = 4
[tool.spqr.profile.lite]
trains = "lora"
steps = 2
batch = 2
"""
"""Of a pyproject.toml: what makes a run with random weights short, and measurable."""
UNGUIDED = ("flux-schnell",)
"""Pipelines on which `sampler.guidance` has no effect: leave it at 1."""

_TEXT = (
    "a an the of in on and with no photo sketch painting drawing picture red green blue yellow "
    "black white circle square triangle star tree hazard sign cat dog house small big"
)
_WIDTH = 16
_CLIP_TOKENS, _T5_TOKENS = 77, 256


def build(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a pipeline of `CLASSES` or `VARIANTS` to `folder` and return it.

    Equal seeds give equal weights.
    """
    import torch

    from spqr_checks.models.pipelines import quiet

    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _MAKERS[name]().save_pretrained(folder, safe_serialization=True)
    return folder


def sampler(name: str, **changes: Any) -> Any:
    """A `Sampler` of two steps that the class takes, with guidance where it has any."""
    from spqr_checks.choices import Sampler

    given = {"steps": 2, "guidance": 1.0 if name in UNGUIDED else 3.0, "batch": 4}
    return Sampler(**(given | {"height": SIZE, "width": SIZE} | changes))


def clip_tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's tokenizer with every byte and a few words; OpenCLIP's pads with an exclamation mark.

    The vocabulary is ordered as CLIP's: bytes, bytes that end a word, merges, start and end.
    """
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: dict[tuple[str, str], None] = {}
    for word in _TEXT.split():
        letters = [*word[:-1], word[-1] + "</w>"]
        for end in range(1, len(letters)):
            merges["".join(letters[:end]), letters[end]] = None
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    pieces += [left + right for left, right in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(dict.fromkeys(pieces))},
        merges=list(merges),
        pad_token=pad,
        model_max_length=_CLIP_TOKENS,
    )


def t5_tokenizer() -> T5Tokenizer:
    """T5's unigram tokenizer with the same words and the letters."""
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in _TEXT.split()]
    pieces += [(letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789,.-'"]
    return T5TokenizerFast(vocab=pieces, model_max_length=_T5_TOKENS)


def _clip(tokenizer: CLIPTokenizer, projection: bool = False, act: str = "quick_gelu") -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=_CLIP_TOKENS,
        projection_dim=_WIDTH,
        hidden_act=act,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder: CLIPTextModel = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)
    # drawn with a standard deviation of 0.02, words would hardly differ at this width
    encoder.get_input_embeddings().weight.data *= 50
    return encoder.eval()


def _t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=2 * _WIDTH,
        d_kv=8,
        d_ff=2 * _WIDTH,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


def _vae(channels: int = 4, **config: Any) -> AutoencoderKL:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIZE,
        **config,
    ).eval()
    # random decoders draw grey; with contrast, a difference between latents is seen in the pixels
    vae.decoder.conv_out.weight.data *= 1.5
    return vae


def _unet(**config: Any) -> Any:
    from diffusers import UNet2DConditionModel

    given: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": _WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**(given | config)).eval()


_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def _sd1() -> DiffusionPipeline:
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    tokenizer = clip_tokenizer()
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_clip(tokenizer),
        tokenizer=tokenizer,
        unet=_unet(),
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1, **_NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sd2() -> DiffusionPipeline:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    tokenizer = clip_tokenizer(pad="!")
    scheduler = DDIMScheduler(
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **_NOISE,
    )
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_clip(tokenizer, act="gelu"),
        tokenizer=tokenizer,
        unet=_unet(use_linear_projection=True, attention_head_dim=(2, 4)),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> DiffusionPipeline:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    first, second = clip_tokenizer(), clip_tokenizer(pad="!")
    return StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025),
        text_encoder=_clip(first),
        text_encoder_2=_clip(second, projection=True, act="gelu"),
        tokenizer=first,
        tokenizer_2=second,
        unet=_unet(
            cross_attention_dim=2 * _WIDTH,
            use_linear_projection=True,
            attention_head_dim=(2, 4),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
        ),
        scheduler=EulerDiscreteScheduler(steps_offset=1, **_NOISE),
        add_watermarker=False,
    )


def _sd3() -> DiffusionPipeline:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    first, second, third = clip_tokenizer(), clip_tokenizer(pad="!"), t5_tokenizer()
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            in_channels=8,
            out_channels=8,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=2 * _WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=2 * _WIDTH,
            pos_embed_max_size=16,
            qk_norm="rms_norm",
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_flow_vae(),
        text_encoder=_clip(first, projection=True),
        tokenizer=first,
        text_encoder_2=_clip(second, projection=True, act="gelu"),
        tokenizer_2=second,
        text_encoder_3=_t5(third),
        tokenizer_3=third,
    )


def _flow_vae() -> AutoencoderKL:
    """Eight channels, a shift and no quantising convolutions, as in Stable Diffusion 3 and Flux."""
    return _vae(8, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False)


def _flux(guidance: bool = True) -> DiffusionPipeline:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    first, second = clip_tokenizer(), t5_tokenizer()
    dynamic = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "shift": 3.0}
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**(dynamic if guidance else {"shift": 1.0})),
        vae=_flow_vae(),
        text_encoder=_clip(first),
        tokenizer=first,
        text_encoder_2=_t5(second),
        tokenizer_2=second,
        transformer=FluxTransformer2DModel(
            in_channels=4 * 8,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=2 * _WIDTH,
            pooled_projection_dim=_WIDTH,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 6, 6),
        ).eval(),
    )


def _schnell() -> DiffusionPipeline:
    return _flux(guidance=False)


def _pixart() -> DiffusionPipeline:
    from diffusers import (
        DPMSolverMultistepScheduler,
        PixArtSigmaPipeline,
        PixArtTransformer2DModel,
    )

    tokenizer = t5_tokenizer()
    return PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=_t5(tokenizer),
        vae=_vae(scaling_factor=0.13025),
        transformer=PixArtTransformer2DModel(
            sample_size=8,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            cross_attention_dim=16,
            caption_channels=2 * _WIDTH,
            use_additional_conditions=False,
        ).eval(),
        scheduler=DPMSolverMultistepScheduler(beta_schedule="linear", beta_end=0.02),
    )


_MAKERS: dict[str, Callable[[], Any]] = {
    "sd1": _sd1,
    "sd2": _sd2,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux": _flux,
    "flux-schnell": _schnell,
    "pixart": _pixart,
}
