"""Pretrained networks and what lies beside them, loaded exactly or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.utils import logging

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.models.sources import META
from spqr_checks.packages import remedy
from spqr_checks.user_files import read_object

DTYPES = ("auto", "float32", "bfloat16", "float16")
BATCH = 64
"""Images per forward pass; fixed, because the last bits depend on it."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and advice; what matters here is raised instead."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def read_config(folder: Path, source: str) -> dict[str, Any]:
    """What config.json says. Raises UserError if it is not there or not readable."""
    config = read_object(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"{source}: its config.json names no model_type; give a model's folder")
    return config


def precision(dtype: str) -> torch.dtype | Literal["auto"]:
    """What transformers calls a precision; raises UserError for none of `DTYPES`."""
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}; there are: {', '.join(DTYPES)}")
    return "auto" if dtype == "auto" else cast(torch.dtype, getattr(torch, dtype))


def load_network(
    auto_class: Any,
    folder: Path,
    source: str,
    device: str,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    what: str | None = None,
    **options: Any,
) -> Any:
    """A pretrained network in evaluation mode.

    transformers fills weights that a file lacks with random numbers and goes on; here that is an
    error, as are weights that the network has no place for.

    Args:
        auto_class: a transformers class with ``from_pretrained``.
        folder: directory with config.json and safetensors.
        source: how the user named it; only for messages.
        device: where the network is put, for example ``cpu``; on ``meta`` all is checked but
            the weights' values.
        dtype: ``auto`` takes the weights' own.
        what: the kind of network, for messages; its class if not given.
        options: for the network's class.

    Raises:
        UserError: for files that are missing, unreadable, or do not fit the architecture.
    """
    if device == META:
        options["device_map"] = META
    try:
        with quiet():
            network, report = auto_class.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, with their names
                **options,
            )
    except Exception as error:  # any failure to load ends here, as a message
        kind = what or auto_class.__name__
        raise UserError(f"{source}: cannot be loaded as {kind}: {error}") from error
    for wrong in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found := sorted(map(str, report[wrong])):
            raise UserError(
                f"{source}: weights do not fit the architecture in config.json: "
                f"{len(found)} {wrong.replace('_', ' ')}, for example {found[0]}"
            )
    return network.eval() if device == META else network.to(device).eval()


def load_image_processor(folder: Path, source: str) -> Any:
    """The network's own preprocessing, in Pillow (the same bytes with or without torchvision).

    Raises:
        UserError: if there is none, or none that works on Pillow images.
    """
    failure = "no usable image preprocessing (preprocessor_config.json)"
    return load_beside(AutoImageProcessor, folder, source, failure, backend="pil")


def load_tokenizer(folder: Path, source: str | Path) -> Any:
    """The tokenizer of a folder; raises UserError if it cannot be loaded."""
    return load_beside(AutoTokenizer, folder, source, "its tokenizer cannot be loaded")


def load_beside(
    auto_class: Any, folder: Path, source: str | Path, failure: str, **options: Any
) -> Any:
    """What lies beside a network: its tokenizer or processor; ``failure`` says what is amiss.

    Raises:
        UserError: if it is not there or cannot be loaded.
    """
    try:
        with quiet():
            return auto_class.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **options
            )
    except Exception as error:  # any failure to load ends here, as a message
        raise UserError(f"{source}: {failure}: {remedy(error) or error}") from error


def pixel_batches(
    processor: Any, images: Sequence[Image.Image], device: str
) -> Iterator[torch.Tensor]:
    """Preprocessed images in fixed consecutive batches, float32, shape (≤ 64, 3, h, w).

    Raises:
        JudgeError: if preprocessing loses images or yields numbers that are not finite.
    """
    for start in range(0, len(images), BATCH):
        part = [image.convert("RGB") for image in images[start : start + BATCH]]
        pixels = processor(images=part, return_tensors="pt")["pixel_values"].to(
            device, torch.float32
        )
        if len(pixels) != len(part) or not torch.isfinite(pixels).all():
            raise JudgeError(
                f"preprocessing turned {len(part)} images into {len(pixels)}, or into NaN"
            )
        yield pixels
