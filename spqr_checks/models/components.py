"""Single parts put on a pipeline: a replaced network, and the pipeline's own safety checker.

A safe text encoder (AdvUnlearn, Zhang et al., arXiv 2405.15234) or a fine-tuned denoiser (ESD,
Gandikota et al., arXiv 2303.07345) is often published by itself: `text-encoder=PATH`,
`denoiser=PATH`. Light: torch is imported when one is put on a pipeline.
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
DENOISERS = ("unet", "transformer")
_CHECKER, _EXTRACTOR = "safety_checker", "feature_extractor"


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
        names = DENOISERS if self.component == "denoiser" else (self.component,)
        found = [path / name for name in names if (path / name).is_dir()]
        if not found:
            raise UserError(f"{path} is a pipeline without a {self.component}.")
        return found[0]

    def recipe(self) -> dict[str, Json]:
        """What decides the network's bytes. Raises UserError as `path`."""
        path = self.path()
        part_of_more = path != resolve(self.source)
        return {self.component: source_recipe(str(path) if part_of_more else self.source)}


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
    from spqr_checks.models.weights import compare_shapes, named_weights, shapes

    name, own = _own(pipe, new.component)
    path = new.path()
    if path.is_file():
        safetensors_header(path)
    with quiet(), tempfile.TemporaryDirectory() as work:
        folder = path if path.is_dir() else _staged(path, own, Path(work))
        loaded = load_network(folder, type(own), dtype_named(dtype), path)
    compare_shapes(shapes(named_weights(own)), shapes(named_weights(loaded)), str(path))
    loaded.eval().requires_grad_(False).to(next(own.parameters()).device)
    pipe.register_modules(**{name: loaded})


def _own(pipe: DiffusionPipeline, component: str) -> tuple[str, nn.Module]:
    names = DENOISERS if component == "denoiser" else (component,)
    for name in names:
        if (own := getattr(pipe, name, None)) is not None:
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


def attach_safety_checker(pipe: DiffusionPipeline, source: str, dtype: str = "float32") -> None:
    """Puts the safety checker of a pipeline folder or Hub id on a pipeline, as a product runs it.

    The checker looks at every finished image and replaces what it objects to by black. Its images
    are prepared in Pillow, which gives the same bytes with and without torchvision.

    Raises UserError where there is no checker, and for weights that are missing, do not fit or are
    not finite.
    """
    from spqr_checks.models import pipelines

    folder = resolve(source)
    with pipelines.quiet():
        index, pipeline_class = pipelines.read_index(folder)
        entry = index.get(_CHECKER)
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0]):
            raise UserError(
                f"safety_checker is on, but {source} ({pipeline_class.__name__}) comes without "
                "one. Leave the setting out, or give a pipeline that has one."
            )
        found = pipelines.component_class(folder, _CHECKER, str(entry[0]), str(entry[1]))
        if found is None or not hasattr(pipe, _CHECKER):
            raise UserError(f"{folder / _CHECKER}: {type(pipe).__name__} cannot use this checker.")
        checker = pipelines.load_network(folder / _CHECKER, found, pipelines.dtype_named(dtype))
        extractor = _extractor(folder / _EXTRACTOR)
        pipe.register_modules(**{_CHECKER: checker, _EXTRACTOR: extractor})
        pipe.register_to_config(requires_safety_checker=True)
    checker.eval().requires_grad_(False).to(pipe.device)


def _extractor(folder: Path) -> Any:
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; the safety checker cannot look at images without.")
    from transformers import AutoImageProcessor

    from spqr_checks.models.pipelines import LOADING_ERRORS, first_line

    try:
        return AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
    except LOADING_ERRORS as error:
        raise UserError(f"{folder} cannot be loaded: {first_line(error)}") from error
