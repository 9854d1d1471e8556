"""Whether weights are those that their configurations describe, by headers: no weight is read.

A network is put together without memory (torch's meta device), and the names and shapes of its
weights are compared with what its files say they hold. Where names differ in a way that may be
a library's renaming, the loader itself is asked.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn

from spqr_checks.errors import UserError
from spqr_checks.models import lora_files
from spqr_checks.models.components import DENOISERS, Replacement, replacement
from spqr_checks.models.pipelines import (
    LOADING_ERRORS,
    chosen_components,
    component_class,
    first_line,
    load_network,
    quiet,
    read_index,
    weight_files,
)
from spqr_checks.models.sources import resolve, safetensors_header
from spqr_checks.models.weights import compare_shapes

Shapes = dict[str, tuple[int, ...]]


def check(
    candidate: str, base: str, adapters: tuple[str, ...] = (), alpha: str = ""
) -> list[tuple[str, str]]:
    """What is wrong with the files of a base and a candidate; none is the best.

    Returns:
        For each problem the setting that names its file, and the problem.

    Args:
        candidate: a pipeline, or `denoiser=PATH`, `text-encoder=PATH` and the like; nothing where
            the candidate is made from the base.
        adapters, alpha: as `lora_files.check` takes them.
    """
    problems: list[tuple[str, str]] = []
    replaced = replacement(candidate) if candidate else None
    pipelines = {"base": base} | ({} if replaced or not candidate else {"candidate": candidate})
    with quiet():
        for field, source in pipelines.items():
            try:
                folder = resolve(source)
                for name, found in _networks(folder):
                    problems += [(field, said) for said in _said(folder / name, found)]
            except UserError as error:
                problems.append((field, str(error)))
        if replaced is not None and not problems:
            problems += [("candidate", said) for said in _replaced(replaced, resolve(base))]
    try:
        lora_files.check(adapters, alpha)
    except UserError as error:
        problems.append(("adapters", str(error)))
    return problems


def _networks(folder: Path) -> Iterator[tuple[str, type[nn.Module]]]:
    index, pipeline_class = read_index(folder)
    components = chosen_components(folder / "model_index.json", index, pipeline_class)
    for name, entry in components.items():
        if entry is not None and (found := component_class(folder, name, *entry)) is not None:
            yield name, found


def _replaced(new: Replacement, base: Path) -> list[str]:
    """A network that replaces the base's must be of its class, with its weights."""
    networks = dict(_networks(base))
    names = DENOISERS if new.component == "denoiser" else (new.component,)
    name = next((name for name in names if name in networks), None)
    if name is None:
        return [f"{base}: the pipeline has no {new.component}, which the candidate replaces."]
    try:
        path = new.path()
        if path.is_dir():
            wanted, found = (_described(f, networks[name])[1] for f in (base / name, path))
            compare_shapes(wanted, found, str(path))
            return _said(path, networks[name])
        with tempfile.TemporaryDirectory() as work:
            shutil.copy(base / name / "config.json", work)
            is_model = issubclass(networks[name], ModelMixin)
            stem = "diffusion_pytorch_model" if is_model else "model"
            os.symlink(path.resolve(), Path(work) / f"{stem}.safetensors")
            return _said(Path(work), networks[name], path)
    except UserError as error:
        return [str(error)]


def _said(folder: Path, found: type[nn.Module], origin: Path | None = None) -> list[str]:
    """Why a network's files do not fit its configuration; `origin` is what messages name."""
    origin = origin or folder
    try:
        files, _ = weight_files(folder, origin)
        held = {k: shape for file in files for k, (_, shape) in safetensors_header(file).items()}
        network, expected = _described(folder, found)
        try:
            compare_shapes(*_alike(network, expected, held), str(origin))
        except UserError:  # whether weights are missing or renamed, the loader knows
            load_network(folder, found, torch.float32, origin)
    except UserError as error:
        return [str(error)]
    return []


def _described(folder: Path, found: Any) -> tuple[nn.Module, Shapes]:
    """Names and shapes of the weights that a configuration asks for."""
    try:
        if issubclass(found, ModelMixin):
            with torch.device("meta"):
                network = found.from_config(found.load_config(folder, local_files_only=True))
        else:
            config = found.config_class.from_pretrained(folder, local_files_only=True)
            with torch.device("meta"):
                network = found(config)
            network.tie_weights()
    except LOADING_ERRORS as error:
        raise UserError(
            f"{folder / 'config.json'} describes no {found.__name__}: {first_line(error)}"
        ) from error
    state: Mapping[str, torch.Tensor] = network.state_dict(keep_vars=True)
    return network, {key: tuple(tensor.shape) for key, tensor in state.items()}


def _alike(network: nn.Module, expected: Shapes, held: Shapes) -> tuple[Shapes, Shapes]:
    """Both sides without what makes no difference: tied weights, and what CLIP's file names add."""
    if not hasattr(network, "text_model"):
        held = {key.removeprefix("text_model."): shape for key, shape in held.items()}
    held = {key: shape for key, shape in held.items() if not key.endswith("position_ids")}
    ids = {key: id(tensor) for key, tensor in network.state_dict(keep_vars=True).items()}
    there = {ids[key] for key in held if key in ids}
    tied = {key for key in expected if key not in held and ids[key] in there}
    return {key: shape for key, shape in expected.items() if key not in tied}, held
