"""Weights of other formats, written as safetensors: the one place that ever opens a pickle.

`torch.load(weights_only=True)` rebuilds tensors and plain containers and refuses all else that a
pickle could do. Nothing here is called by a run; `spqr convert` is.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.hub import away
from spqr_checks.models.pipelines import (
    LOADING_ERRORS,
    first_line,
    load_pipeline,
    quiet,
    read_index,
)
from spqr_checks.models.sources import HASHED, PICKLED
from spqr_checks.models.weights import (
    compare_shapes,
    counted,
    denoiser_of,
    named_weights,
    read_tensors,
    refuse_non_finite,
    shapes,
)

_INDEX = ".index.json"
_DENOISER = "model.diffusion_model."
"""Of a whole model in one file, in the layout of CompVis' Stable Diffusion."""
_CONFIGS = ("*.json", "*.txt", "*.model")


def convert(source: Path, out: Path, config: str = "") -> Path:
    """Writes weights as this package reads them and returns what to give it.

    A folder is copied with its pickled weights as safetensors. A checkpoint of a whole model
    (CompVis' layout, .ckpt or .safetensors) becomes a pipeline folder. A state dict becomes one
    safetensors file in the new folder, and where a pipeline is given with it a whole one: methods
    that train a part of the denoiser are often published as that part. A pipeline is loaded once,
    strictly, before it counts.

    Args:
        out: a folder that does not exist yet, or is empty.
        config: for a whole model, folder or Hub id of a pipeline of the same kind, whose
            configurations, tokenizer and scheduler are used; by default diffusers recognises the
            kind and its configurations are downloaded. For a state dict, the pipeline of whose
            denoiser it is a part: what it lacks is taken from there.

    Raises:
        UserError: for what cannot be read as weights alone, and nothing is left behind.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already there and not empty; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        written = _folder(source, work) if source.is_dir() else _file(source, work, config)
        if (work / "model_index.json").is_file():
            load_pipeline(str(work))
        work.chmod(0o755)
        work.replace(out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return out / written


def _folder(source: Path, work: Path) -> str:
    """A copy of what would be read, with safetensors in place of pickles without any beside."""
    converted = 0
    for path in sorted(source.rglob("*")):
        place = work / path.relative_to(source)
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(source).parts):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        pickled = path.suffix.lower() in PICKLED and not any(path.parent.glob("*.safetensors"))
        if path.parent == source and (source / "model_index.json").is_file():
            pickled = False  # a pipeline's weights lie in its sub-folders
        if pickled:
            _write(unpickled(path), place.with_name(_renamed(path.name)), path)
            converted += 1
        elif path.name.endswith(f".bin{_INDEX}"):
            index = json.loads(path.read_text(encoding="utf-8"))
            names = index["weight_map"]
            index["weight_map"] = {key: _renamed(name) for key, name in names.items()}
            shards = _renamed(path.name.removesuffix(_INDEX)) + _INDEX
            place.with_name(shards).write_text(json.dumps(index, indent=2), encoding="utf-8")
        elif path.suffix.lower() in HASHED:
            shutil.copyfile(path, place)
    if not converted:
        raise UserError(f"{source}: nothing to convert, no weights are pickled.")
    return ""


def _file(source: Path, work: Path, config: str) -> str:
    is_pickle = source.suffix.lower() in PICKLED
    if not is_pickle and source.suffix.lower() != ".safetensors":
        raise UserError(f"{source}: give a .safetensors file or one of {', '.join(PICKLED)}.")
    weights = unpickled(source) if is_pickle else dict(read_tensors(source))
    if any(key.startswith(_DENOISER) for key in weights):
        _save_whole_model(weights, source, work, config)
        return ""
    if config:
        weights = _completed(weights, source, config)
    elif not is_pickle:
        raise UserError(
            f"{source} is safetensors already, and no checkpoint of a whole model. Give it as "
            "--spqr-adapters, or as --spqr-candidate denoiser=FILE or text-encoder=FILE; if it is "
            "a part of a denoiser, give --config the pipeline that has the rest."
        )
    name = _renamed(source.name)
    _write(weights, work / name, source)
    return name


def _completed(part: Mapping[str, Tensor], source: Path, config: str) -> dict[str, Tensor]:
    """A pipeline's whole denoiser with a part of its weights from elsewhere."""
    own = named_weights(denoiser_of(load_pipeline(config)))
    if foreign := part.keys() - own.keys():
        raise UserError(
            f"{source} is no part of the denoiser of {config}: {counted({'unexpected': foreign})}."
        )
    compare_shapes(shapes({name: own[name] for name in part}), shapes(part), str(source))
    return {
        name: part[name].to(tensor.dtype) if name in part else tensor.detach()
        for name, tensor in own.items()
    }


def unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled state dict, of one in a training checkpoint's `state_dict`, and of
    one that is alone under `unet` (Concept Ablation's ``delta.bin``).

    Raises:
        UserError: for a file that holds anything but tensors and plain containers, or other
            entries than tensors.
    """
    try:
        loaded: Any = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than weights, which is never loaded: {first_line(error)}"
        ) from error
    except (*LOADING_ERRORS, EOFError) as error:
        raise UserError(f"{path} cannot be read as weights: {first_line(error)}") from error
    while isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if isinstance(loaded, dict) and [k for k, part in loaded.items() if not _nothing(part)] == [
        "unet"
    ]:
        loaded = loaded["unet"]
    if not isinstance(loaded, dict) or not loaded:
        raise UserError(f"{path} holds no state dict.")
    for key, value in loaded.items():
        if not isinstance(value, Tensor) or not isinstance(key, str):
            raise UserError(
                f"{path}: {key!r} is a {type(value).__name__}, not a tensor; only a plain state "
                "dict is converted. Save the parts that are needed by themselves."
            )
    return loaded


def _nothing(part: Any) -> bool:
    return isinstance(part, dict) and not part


def _write(weights: Mapping[str, Tensor], path: Path, source: Path) -> None:
    for key, tensor in weights.items():
        refuse_non_finite(tensor, key, str(source))
    # copies: safetensors refuses tensors that share memory (tied weights)
    whole = {key: tensor.detach().clone().contiguous() for key, tensor in weights.items()}
    with quiet():
        save_file(whole, path, metadata={"format": "pt"})


def _renamed(name: str) -> str:
    """As the loaders expect it: transformers calls its pickles otherwise than its safetensors."""
    return re.sub(r"^pytorch_(?=model([-.]|$))", "", Path(name).stem) + ".safetensors"


def _save_whole_model(weights: Mapping[str, Tensor], source: Path, out: Path, config: str) -> None:
    """Writes a checkpoint as a pipeline folder; UserError unless it fills its networks exactly."""
    folder = _configurations(config, weights, source)
    _, pipeline_class = read_index(folder)
    if not hasattr(pipeline_class, "from_single_file"):
        raise UserError(f"{config}: a {pipeline_class.__name__} cannot be made from a single file.")
    with quiet(), tempfile.TemporaryDirectory() as work:
        file = Path(work) / "model.safetensors"
        _write(weights, file, source)
        try:
            pipe: Any = pipeline_class.from_single_file(
                str(file), config=str(folder), local_files_only=True
            )
            # layers may be split or joined on the way, so numbers are counted, not names
            given = sum(t.numel() for key, t in weights.items() if key.startswith(_DENOISER))
            used = sum(tensor.numel() for tensor in denoiser_of(pipe).state_dict().values())
            if given != used:
                raise UserError(
                    f"{source}: its denoiser has {given} numbers, the configuration asks for "
                    f"{used}. Give --config a pipeline of the same kind."
                )
            pipe.save_pretrained(out, safe_serialization=True)
        except (*LOADING_ERRORS, NotImplementedError) as error:
            raise UserError(
                f"{source} does not hold what the configurations in {folder} ask for: "
                f"{first_line(error)}"
            ) from error


def _configurations(config: str, weights: Mapping[str, Tensor], source: Path) -> Path:
    if config and Path(config).is_dir():
        return Path(config)
    from diffusers.loaders.single_file_utils import fetch_diffusers_config
    from huggingface_hub import snapshot_download

    name = config or fetch_diffusers_config(dict(weights))["pretrained_model_name_or_path"]
    name, _, revision = str(name).partition("@")
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(_CONFIGS),
                local_files_only=away(),
            )
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{source}: the configurations of {name} cannot be had: {first_line(error)}\n"
            "Give --config the folder of a pipeline of the same kind."
        ) from error
