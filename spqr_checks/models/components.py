"""Candidates that are the base with one network replaced: `text-encoder=PATH`, `denoiser=PATH`.

A safe text encoder (AdvUnlearn, Zhang et al., arXiv 2405.15234) or a fine-tuned denoiser (ESD,
Gandikota et al., arXiv 2303.07345) is often published by itself. Light: torch is imported when one
is put on a pipeline.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.models.sources import resolve, safetensors_header, source_recipe

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn

_SPEC = re.compile(r"(?P<component>denoiser|text-encoder(-[23])?)=(?P<source>.+)")
_DENOISERS = ("unet", "transformer")


@dataclass(frozen=True, slots=True)
class Replacement:
    """Which network of the base is replaced, and the folder, file or Hub id of the new one.

    Attributes:
        component: ``denoiser``, ``text_encoder``, ``text_encoder_2`` or ``text_encoder_3``.
    """

    component: str
    source: str

    def path(self) -> Path:
        """The network's own folder or safetensors file; of a whole pipeline, the right part.

        Raises:
            UserError: as `sources.resolve`, and for a pipeline without such a part.
        """
        path = resolve(self.source)
        if not (path / "model_index.json").is_file():
            return path
        names = _DENOISERS if self.component == "denoiser" else (self.component,)
        found = [path / name for name in names if (path / name).is_dir()]
        if not found:
            raise UserError(f"{path} is a pipeline without a {self.component}.")
        return found[0]

    def recipe(self) -> dict[str, Json]:
        """What decides the network's bytes. Raises UserError as `path`."""
        path = self.path()
        if path == resolve(self.source):
            return {self.component: source_recipe(self.source)}
        return {self.component: source_recipe(str(path))}


def replacement(candidate: str) -> Replacement | None:
    """What a candidate's specification replaces, if it is of this kind."""
    match = _SPEC.fullmatch(candidate)
    if match is None:
        return None
    return Replacement(match["component"].replace("-", "_"), match["source"])


def replace_network(pipe: DiffusionPipeline, new: Replacement, dtype: str) -> None:
    """Puts the new network in the place of the pipeline's own, on the same device.

    A folder is loaded as its config.json describes it; a single file as the network that it
    replaces. Either must be of the same class and have the same weights as that.

    Raises:
        UserError: for missing, unexpected or misshapen weights, NaN, and a pipeline that has no
            such network.
    """
    from spqr_checks.models.pipelines import dtype_named, load_network, quiet
    from spqr_checks.models.weights import compare_shapes, named_weights

    name, own = _own(pipe, new.component)
    path = new.path()
    if path.is_file():
        safetensors_header(path)
    with quiet(), tempfile.TemporaryDirectory() as work:
        folder = path if path.is_dir() else _staged(path, own, Path(work))
        loaded = load_network(folder, type(own), dtype_named(dtype), path)
    expected, found = (
        {key: tuple(tensor.shape) for key, tensor in named_weights(network).items()}
        for network in (own, loaded)
    )
    compare_shapes(expected, found, str(path))
    loaded.eval().requires_grad_(False).to(next(own.parameters()).device)
    pipe.register_modules(**{name: loaded})


def _own(pipe: DiffusionPipeline, component: str) -> tuple[str, nn.Module]:
    names = _DENOISERS if component == "denoiser" else (component,)
    for name in names:
        own = getattr(pipe, name, None)
        if own is not None:
            return name, own
    raise UserError(
        f"candidate {component.replace('_', '-')}=…: {type(pipe).__name__} has no {component}."
    )


def _staged(path: Path, own: Any, folder: Path) -> Path:
    """A folder as save_pretrained would write it, with the file as its weights."""
    from diffusers import ModelMixin

    if isinstance(own, ModelMixin):
        own.save_config(folder)
        weights = folder / "diffusion_pytorch_model.safetensors"
    else:
        own.config.save_pretrained(folder)
        weights = folder / "model.safetensors"
    os.symlink(path.resolve(), weights)
    return folder
