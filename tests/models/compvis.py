"""A tiny Stable Diffusion 1 in CompVis' layout: one state dict with the names of that code."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def whole_checkpoint(pipe: Any) -> dict[str, Tensor]:
    """The weights of a pipeline with one resnet in each block of its UNet and autoencoder."""
    weights: dict[str, Tensor] = {}
    for key, tensor in pipe.unet.state_dict().items():
        weights[f"model.diffusion_model.{_unet(key)}"] = tensor.clone()
    levels = len(pipe.vae.config.block_out_channels)
    for key, tensor in pipe.vae.state_dict().items():
        name = _vae(key, levels)
        square = ".mid.attn_1." in name and tensor.ndim == 2
        weights[f"first_stage_model.{name}"] = tensor[..., None, None] if square else tensor.clone()
    for key, tensor in pipe.text_encoder.state_dict().items():
        plain = key.removeprefix("text_model.")
        weights[f"cond_stage_model.transformer.text_model.{plain}"] = tensor.clone()
    return weights


def _swapped(rest: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        if rest.startswith(f"{ours}."):
            return theirs + rest.removeprefix(ours)
    return rest


def _unet(key: str) -> str:
    match = re.fullmatch(r"(down|up|mid)_blocks?\.(?:(\d)\.)?(\w+)\.(\d)\.(.+)", key)
    if match is None:
        return _swapped(key, _TOP)
    where, block, kind, number, rest = match.groups()
    i, j = int(block or 0), int(number)
    if kind == "resnets":
        rest = _swapped(rest, _RESNET)
    if where == "mid":
        return f"middle_block.{2 * j if kind == 'resnets' else 1}.{rest}"
    place = int(kind == "attentions")
    if where == "down":
        if kind == "downsamplers":
            return f"input_blocks.{2 * (i + 1)}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{2 * i + j + 1}.{place}.{rest}"
    if kind == "upsamplers":
        return f"output_blocks.{2 * i + 1}.2.{rest}"
    return f"output_blocks.{2 * i + j}.{place}.{rest}"


def _vae(key: str, levels: int) -> str:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    match = re.fullmatch(r"(en|de)coder\.(down|up|mid)_blocks?\.(?:(\d)\.)?(\w+)\.(\d)\.(.+)", key)
    if match is None:
        return key
    side, where, block, kind, number, rest = match.groups()
    if where == "mid":
        attention = kind == "attentions"
        inner = _swapped(rest, _ATTENTION) if attention else rest
        return f"{side}coder.mid.{'attn_1' if attention else f'block_{int(number) + 1}'}.{inner}"
    i = levels - 1 - int(block) if where == "up" else int(block)
    if kind == "resnets":
        return f"{side}coder.{where}.{i}.block.{number}.{rest}"
    return f"{side}coder.{where}.{i}.{where}sample.{rest}"
