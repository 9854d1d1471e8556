"""Checkpoints that hold a whole model in one file, in the layout of CompVis' Stable Diffusion."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.models.pipelines import LOADING_ERRORS, first_line, quiet, read_index
from spqr_checks.models.weights import denoiser_of, refuse_non_finite

_DENOISER = "model.diffusion_model."
_CONFIGS = ("*.json", "*.txt", "*.model")


def is_whole_model(keys: Iterable[str]) -> bool:
    """Whether these are the names of a whole model's weights."""
    return any(key.startswith(_DENOISER) for key in keys)


def save_whole_model(weights: Mapping[str, Tensor], source: Path, out: Path, config: str) -> None:
    """Writes a checkpoint as a diffusers pipeline folder.

    Args:
        source: where the weights are from, for messages.
        config: folder or Hub id of a pipeline of this kind; "" lets diffusers recognise it.

    Raises:
        UserError: if the configurations cannot be had, or the weights do not fill the networks
            that they describe exactly.
    """
    for key, tensor in weights.items():
        refuse_non_finite(tensor, key, str(source))
    folder = _configurations(config, weights, source)
    _, pipeline_class = read_index(folder)
    if not hasattr(pipeline_class, "from_single_file"):
        raise UserError(f"{config}: a {pipeline_class.__name__} cannot be made from a single file.")
    with quiet(), tempfile.TemporaryDirectory() as work:
        file = Path(work) / "model.safetensors"
        save_file({key: tensor.clone().contiguous() for key, tensor in weights.items()}, file)
        try:
            pipe: Any = pipeline_class.from_single_file(
                str(file), config=str(folder), local_files_only=True
            )
            _all_used(pipe, weights, source)
            pipe.save_pretrained(out, safe_serialization=True)
        except (*LOADING_ERRORS, NotImplementedError) as error:
            raise UserError(
                f"{source} does not hold what the configurations in {folder} ask for: "
                f"{first_line(error)}"
            ) from error


def _all_used(pipe: Any, weights: Mapping[str, Tensor], source: Path) -> None:
    """Layers may be split or joined on the way, so numbers are counted, not names."""
    given = sum(t.numel() for key, t in weights.items() if key.startswith(_DENOISER))
    used = sum(tensor.numel() for tensor in denoiser_of(pipe).state_dict().values())
    if given != used:
        raise UserError(
            f"{source}: its denoiser has {given} numbers, the configuration asks for {used}. "
            "Give --config a pipeline of the same kind."
        )


def _configurations(config: str, weights: Mapping[str, Tensor], source: Path) -> Path:
    if config and Path(config).is_dir():
        return Path(config)
    from diffusers.loaders.single_file_utils import fetch_diffusers_config
    from huggingface_hub import snapshot_download

    name = config or fetch_diffusers_config(dict(weights))["pretrained_model_name_or_path"]
    name, _, revision = str(name).partition("@")
    try:
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=list(_CONFIGS))
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{source}: the configurations of {name} cannot be had: {first_line(error)}\n"
            "Give --config the folder of a pipeline of the same kind."
        ) from error
