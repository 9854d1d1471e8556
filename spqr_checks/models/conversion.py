"""Weights of other formats, written as safetensors: the one place that ever opens a pickle.

`torch.load(weights_only=True)` rebuilds tensors and plain containers and refuses all else that a
pickle could do. Nothing here is called by a run; `spqr convert` is.
"""

from __future__ import annotations

import json
import pickle
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.models.pipelines import LOADING_ERRORS, first_line, load_pipeline, quiet
from spqr_checks.models.single_files import is_whole_model, save_whole_model
from spqr_checks.models.sources import HASHED, PICKLED
from spqr_checks.models.weights import read_tensors, refuse_non_finite

_INDEX = ".index.json"


def convert(source: Path, out: Path, config: str = "") -> Path:
    """Writes weights as this package reads them and returns what to give it.

    A folder is copied with its pickled weights as safetensors. A checkpoint of a whole model
    (CompVis' layout, .ckpt or .safetensors) becomes a pipeline folder. A state dict becomes one
    safetensors file in the new folder. A pipeline is loaded once, strictly, before it counts.

    Args:
        out: a folder that does not exist yet, or is empty.
        config: for a whole model, folder or Hub id of a pipeline of the same kind, whose
            configurations, tokenizer and scheduler are used; by default diffusers recognises the
            kind and its configurations are downloaded.

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
        if path.is_dir() or any(part.startswith(".") for part in place.relative_to(work).parts):
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
    if is_whole_model(weights):
        save_whole_model(weights, source, work, config)
        return ""
    if not is_pickle:
        raise UserError(
            f"{source} is safetensors already, and no checkpoint of a whole model. Give it as "
            "--spqr-adapters, or as --spqr-candidate denoiser=FILE or text-encoder=FILE."
        )
    name = _renamed(source.name)
    _write(weights, work / name, source)
    return name


def unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled state dict, and of one in a training checkpoint's `state_dict`.

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
    if not isinstance(loaded, dict) or not loaded:
        raise UserError(f"{path} holds no state dict.")
    for key, value in loaded.items():
        if not isinstance(value, Tensor) or not isinstance(key, str):
            raise UserError(
                f"{path}: {key!r} is a {type(value).__name__}, not a tensor; only a plain state "
                "dict is converted. Save the parts that are needed by themselves."
            )
    return loaded


def _write(weights: dict[str, Tensor], path: Path, source: Path) -> None:
    for key, tensor in weights.items():
        refuse_non_finite(tensor, key, str(source))
    # copies: safetensors refuses tensors that share memory (tied weights)
    whole = {key: tensor.detach().clone().contiguous() for key, tensor in weights.items()}
    with quiet():
        save_file(whole, path, metadata={"format": "pt"})


def _renamed(name: str) -> str:
    """As the loaders expect it: transformers calls its pickles otherwise than its safetensors."""
    stem = Path(name).stem
    if stem == "pytorch_model" or stem.startswith(("pytorch_model-", "pytorch_model.")):
        stem = stem.removeprefix("pytorch_")
    return f"{stem}.safetensors"
