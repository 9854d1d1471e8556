"""A pipeline's own safety checker, put back on: the model as the product runs it.

The checker looks at every finished image and replaces what it objects to by black.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoImageProcessor

from spqr_checks.errors import UserError
from spqr_checks.models.pipelines import (
    LOADING_ERRORS,
    component_class,
    dtype_named,
    first_line,
    load_network,
    quiet,
    read_index,
)
from spqr_checks.models.sources import resolve

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_CHECKER, _EXTRACTOR = "safety_checker", "feature_extractor"


def attach_safety_checker(pipe: DiffusionPipeline, source: str, dtype: str = "float32") -> None:
    """Puts the safety checker of a pipeline folder or Hub id on a pipeline.

    Its images are prepared in Pillow, which gives the same bytes with and without torchvision.

    Raises UserError where there is no checker, and for weights that are missing, do not fit or are
    not finite.
    """
    folder = resolve(source)
    with quiet():
        index, pipeline_class = read_index(folder)
        entry = index.get(_CHECKER)
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0]):
            raise UserError(
                f"safety_checker is on, but {source} ({pipeline_class.__name__}) comes without "
                "one. Leave the setting out, or give a pipeline that has one."
            )
        found = component_class(folder, _CHECKER, str(entry[0]), str(entry[1]))
        if found is None or not hasattr(pipe, _CHECKER):
            raise UserError(f"{folder / _CHECKER}: {type(pipe).__name__} cannot use this checker.")
        checker = load_network(folder / _CHECKER, found, dtype_named(dtype))
        extractor = _extractor(folder / _EXTRACTOR)
        pipe.register_modules(**{_CHECKER: checker, _EXTRACTOR: extractor})
        pipe.register_to_config(requires_safety_checker=True)
    checker.eval().requires_grad_(False).to(pipe.device)


def _extractor(folder: Path) -> Any:
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; the safety checker cannot look at images without.")
    try:
        return AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )
    except LOADING_ERRORS as error:
        raise UserError(f"{folder} cannot be loaded: {first_line(error)}") from error
