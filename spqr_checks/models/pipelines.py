"""Diffusers pipelines from safetensors: every weight accounted for, or an error.

The libraries fill weights that a file lacks with random numbers and ignore those that they do not
know, with a warning at most. So each network is loaded on its own and the loader's account of
missing and unexpected keys is checked before the pipeline is put together.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from torch import nn

from spqr_checks.errors import UserError
from spqr_checks.models.memory import keep_freed
from spqr_checks.models.sources import conversion, resolve, safetensors_header
from spqr_checks.models.weights import counted, denoiser_of, networks, refuse_non_finite
from spqr_checks.packages import remedy

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# the old keyword warns in 0.42, the new one is unknown to older versions
_NEW = tuple(int(part) for part in diffusers.__version__.split(".")[:2]) >= (0, 42)
_DTYPE_KEYWORD = "dtype" if _NEW else "torch_dtype"
_INDEX = "model_index.json"
_LIBRARIES = ("diffusers", "transformers")
_AGAIN = "Download it again, or save it again with save_pretrained (safe_serialization=True)."
_VARIANT = re.compile(r"(diffusion_pytorch_)?model\.(?P<variant>\w+)(-\d+-of-\d+)?\.safetensors")
LOADING_ERRORS = (
    *(ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError),
    *(SafetensorError, TypeError, ValueError),
)
"""What the libraries' loaders raise for files that do not fit."""


def load_pipeline(
    source: str,
    dtype: str = "float32",
    device: str = "cpu",
    loaded: Mapping[str, nn.Module] = MappingProxyType({}),
) -> DiffusionPipeline:
    """A text-to-image pipeline ready to sample: evaluation mode, frozen, silent, on `device`.

    Any diffusers pipeline class with a unet or a transformer. Its own safety checker is left out:
    what is measured is what the weights draw (see `components` for the other way). Networks that
    are loaded already, from equal files in the same dtype, are taken as they are.

    Raises UserError, naming file and remedy, for what `sources.resolve` refuses, for missing or
    truncated files, for missing, unexpected or NaN weights and for classes that would need code
    from the source itself.
    """
    keep_freed()
    numbers = dtype_named(dtype)
    folder = resolve(source)
    with quiet():
        index, pipeline_class = read_index(folder)  # the first look at a class imports its module
        parts: dict[str, nn.Module | None] = {}
        for name, entry in chosen_components(folder / _INDEX, index, pipeline_class).items():
            if entry is None:
                parts[name] = None
            elif (found := component_class(folder, name, *entry)) is not None:
                own = loaded.get(name)
                reused = type(own) is found
                parts[name] = own if reused else load_network(folder / name, found, numbers)
        try:
            pipe = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **parts)
        except LOADING_ERRORS as error:
            raise UserError(f"{folder}: {_cause(error)}") from error
    place(pipe, device)
    denoiser_of(pipe)
    pipe.set_progress_bar_config(disable=True)
    for network in networks(pipe).values():
        network.eval().requires_grad_(False)
    return pipe


def load_component(source: str, name: str, dtype: str) -> nn.Module:
    """One network of a pipeline as `load_pipeline` loads it, on the CPU. Errors as there."""
    folder = resolve(source)
    with quiet():
        index, pipeline_class = read_index(folder)
        entry = chosen_components(folder / _INDEX, index, pipeline_class)[name]
        found = None if entry is None else component_class(folder, name, *entry)
        if found is None:
            raise UserError(f"{folder}: {name} is no network of this pipeline.")
        network = load_network(folder / name, found, dtype_named(dtype))
    return network.eval().requires_grad_(False)


def place(pipe: DiffusionPipeline, device: str, offload: str = "none") -> None:
    """Puts a pipeline on a device, whole or piece by piece.

    Args:
        offload: ``none``; ``model`` (one network at a time is on the device, `accelerate`'s model
            offload); ``sequential`` (one layer at a time: least memory, slow).

    Raises:
        UserError: for a device that is not there, offload on the CPU, and pipelines that cannot
            be offloaded.
    """
    if offload != "none" and torch.device(device).type == "cpu":
        raise UserError(
            f"offload = {offload!r} moves weights between main memory and an accelerator, but the "
            "device is the CPU.\nSet --spqr-device, or leave offload out."
        )
    how = "" if offload == "none" else f" with offload {offload!r}"
    try:
        with quiet():
            if offload == "model":
                pipe.enable_model_cpu_offload(device=device)
            elif offload == "sequential":
                pipe.enable_sequential_cpu_offload(device=device)
            else:
                pipe.to(device)
    except (RuntimeError, AssertionError, ValueError, ImportError) as error:
        raise UserError(
            f"the pipeline cannot be put on {device!r}{how}: {first_line(error)}"
        ) from error


def dtype_named(name: str) -> torch.dtype:
    """The type of numbers that a setting names; UserError for an unknown name."""
    if name not in _DTYPES:
        raise UserError(f"unknown dtype {name!r}; use one of {', '.join(_DTYPES)}.")
    return _DTYPES[name]


@contextmanager
def quiet() -> Iterator[None]:
    """Only errors from the libraries that load: no warnings, no progress bars; then as before."""
    chatty = (diffusers.utils.logging, transformers.utils.logging)
    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in chatty]
    for log in chatty:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, verbosity, bars in before:
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()


def read_index(folder: Path) -> tuple[dict[str, Any], type[DiffusionPipeline]]:
    """A pipeline folder's model_index.json and the diffusers class that it names.

    Raises UserError for a single file, a folder without a readable index and a class that
    diffusers does not have.
    """
    path = folder / _INDEX
    if folder.is_file():
        raise UserError(
            f"{folder} is a single file; a pipeline folder is needed. Make one with:\n"
            f"{conversion(folder)}"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        class_name = index["_class_name"]
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} is no diffusers pipeline: {_INDEX} is missing. "
            "Give the folder that save_pretrained wrote."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be understood ({first_line(error)}).\n{_AGAIN}") from error
    found = getattr(diffusers, class_name, None) if isinstance(class_name, str) else None
    if not (inspect.isclass(found) and issubclass(found, DiffusionPipeline)):
        raise UserError(
            f"{path}: {class_name!r} is no pipeline of diffusers {diffusers.__version__}; "
            "code that comes with a model is never run. Use a version that has it."
        )
    return index, found


def chosen_components(
    path: Path, index: dict[str, Any], pipeline_class: type[DiffusionPipeline]
) -> dict[str, tuple[str, str] | None]:
    """Library and class of every component that takes part; None for one left out."""
    accepted = dict(inspect.signature(pipeline_class.__init__).parameters)
    del accepted["self"]
    optional = {"safety_checker", *pipeline_class._optional_components}
    for name, parameter in accepted.items():
        needed = parameter.default is parameter.empty and name not in optional
        if needed and name not in index:
            raise UserError(f"{path} names no {name}, which {pipeline_class.__name__} needs.")
    chosen: dict[str, tuple[str, str] | None] = {}
    for name, entry in index.items():
        if name in accepted and isinstance(entry, list) and len(entry) == 2 and entry[0]:
            chosen[name] = (str(entry[0]), str(entry[1]))
    if "safety_checker" in accepted:
        chosen["safety_checker"] = None
        # the checker's preprocessing; without it torchvision is not wanted either
        if "feature_extractor" in optional and not chosen.get("image_encoder"):
            chosen["feature_extractor"] = None
    return chosen


def component_class(
    folder: Path, name: str, library: str, class_name: str
) -> type[nn.Module] | None:
    """The class of a network; None for a scheduler, a tokenizer and other parts without weights."""
    if library in _LIBRARIES:
        module: Any = importlib.import_module(library)
    else:
        module = getattr(diffusers.pipelines, library, None)
    found = getattr(module, class_name, None)
    if found is None:
        raise UserError(
            f"{folder / _INDEX}: {name} is a {library}.{class_name}, which neither diffusers "
            f"{diffusers.__version__} nor transformers {transformers.__version__} has; code that "
            "comes with a model is never run."
        )
    if not (folder / name).is_dir():
        raise UserError(f"{folder / name} is missing, but {_INDEX} names it.\n{_AGAIN}")
    return found if inspect.isclass(found) and issubclass(found, nn.Module) else None


def load_network(
    folder: Path, found: type[nn.Module], dtype: torch.dtype, origin: Path | None = None
) -> nn.Module:
    """A network of a known class from its own folder, strictly; `origin` is what messages name.

    Raises UserError for missing, unexpected or misshapen weights, NaN and infinities, and files
    that are missing or cannot be read.
    """
    origin = origin or folder
    files, variant = weight_files(folder, origin)
    theirs = issubclass(found, transformers.PreTrainedModel)
    given: dict[str, Any] = {"dtype" if theirs else _DTYPE_KEYWORD: dtype}
    given |= {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    if variant is not None:
        given["variant"] = variant
    try:
        network, account = found.from_pretrained(folder, **given)  # type: ignore[attr-defined]
    except LOADING_ERRORS as error:
        raise UserError(f"{origin} cannot be loaded: {_cause(error)}") from error
    labels = ("missing", "unexpected", "mismatched")
    if wrong := counted({label: map(str, account[f"{label}_keys"]) for label in labels}):
        raise UserError(
            f"{origin}: weights do not fit {found.__name__} as its config.json describes it: "
            f"{wrong}.\n{_AGAIN}"
        )
    for key, tensor in network.state_dict().items():
        refuse_non_finite(tensor, key, str(origin))
    _refuse_other_values(network, files, dtype, origin)
    return network  # type: ignore[no-any-return]


def weight_files(folder: Path, origin: Path) -> tuple[list[Path], str | None]:
    """The files that a network's weights are read from, and the variant in their names.

    Raises UserError where there are none, and for any that is truncated.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{origin} holds no safetensors weights.\n{_AGAIN}")
    for file in files:
        safetensors_header(file)
    variant = _variant(files)
    return [file for file in files if _variant([file]) == variant], variant


def _refuse_other_values(
    network: nn.Module, files: list[Path], dtype: torch.dtype, origin: Path
) -> None:
    """UserError unless what a loader made of the hashed files is what stands in them.

    Of each file the smallest tensor is compared that the network calls by the same name; loaders
    rename some.
    """
    own = {key: value for key, value in network.state_dict().items() if value.dtype == dtype}
    for file in files:
        sizes = {key: math.prod(shape) for key, (_, shape) in safetensors_header(file).items()}
        if not (shared := sizes.keys() & own.keys()):
            continue
        key = min(sorted(shared), key=sizes.__getitem__)
        with safe_open(file, framework="pt") as opened:
            written = opened.get_tensor(key)
        if not torch.equal(written.to(dtype), own[key].cpu()):
            raise UserError(
                f"{origin}: {key} was not loaded as it stands in {file.name}: the installed "
                "libraries read something else. `spqr doctor` names the versions that were tested."
            )


def _variant(files: list[Path]) -> str | None:
    """`fp16` where all that there is, is `model.fp16.safetensors`; None where a plain file is."""
    found = {_VARIANT.fullmatch(file.name) for file in files}
    names = {match["variant"] for match in found if match}
    return names.pop() if None not in found and len(names) == 1 else None


def _cause(error: BaseException) -> str:
    """Why something cannot be loaded, with one remedy."""
    return remedy(error) or f"{first_line(error)}\n{_AGAIN}"


def first_line(error: BaseException) -> str:
    """The gist of a library's error, at most 200 characters."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return textwrap.shorten(line, 200, placeholder=" …")
