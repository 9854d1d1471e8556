"""Batched, seeded, paired sampling from any diffusers text-to-image pipeline.

The initial latent of an image depends on (prompt, seed) alone: every image has a random generator
of its own. So a model state and its fine-tuned descendants are compared image by image. Pixels
also depend, in their last bits, on the images computed beside them; batches are therefore fixed
consecutive blocks of the prompts.

Light: torch is imported when images are drawn.
"""

from __future__ import annotations

import hashlib
import inspect
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from spqr_checks.errors import UserError
from spqr_checks.generation.call_inputs import carried_inputs
from spqr_checks.generation.compiled import compiled
from spqr_checks.generation.guidance.base import guidance_of, guiding
from spqr_checks.generation.guidance.registry import GUIDANCES
from spqr_checks.hashing import Json, library_version
from spqr_checks.source_code import code_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL.Image import Image

    from spqr_checks.choices import Sampler

_LIBRARIES = ("torch", "diffusers", "transformers")
_SETTINGS = {"num_inference_steps": "steps", "guidance_scale": "guidance"}
"""What the sampler calls a pipeline's parameter, where the names differ."""
_BINNED = (32, 64, 128, 256)
"""Latent sizes for which PixArt knows aspect ratios; with others it draws only without them."""


class GenerationError(Exception):
    """Images could not be drawn, or not all of them, or not of finite numbers."""


def generation_recipe(sampler: Sampler) -> dict[str, Json]:
    """What determines the images of a given model, prompts and seeds, threads excepted."""
    return {
        "sampler": sampler.model_dump(mode="json"),
        "code": code_of(draw, type(sampler)),
        **GUIDANCES.added_code(),
        "versions": {name: library_version(name) for name in _LIBRARIES},
        "machine": platform.machine(),
    }


def image_seed(prompt: str, seed: int) -> int:
    """Seed of an image's own generator, in [0, 2⁶³)."""
    text = f"{seed}\n{prompt}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


@dataclass(frozen=True, slots=True)
class Drawn:
    """Images in the order of their prompts, and which of them the safety checker blocked.

    A blocked image is black. Without a checker none is.
    """

    images: list[Image]
    blocked: list[bool]


def generate(
    pipe: Any, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler
) -> list[Image]:
    """The images of `draw`, from a pipeline without a safety checker.

    Raises UserError as `draw`, and for a safety checker, which would replace images by black ones.
    """
    if getattr(pipe, "safety_checker", None) is not None:
        raise UserError(
            f"{type(pipe).__name__} has a safety checker, which blackens images; "
            "load it with safety_checker=None"
        )
    return draw(pipe, prompts, seeds, sampler).images


def draw(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    noise_of: Sequence[str] | None = None,
    embeddings: Sequence[Mapping[str, torch.Tensor]] | None = None,
) -> Drawn:
    """Draws one image per (prompt, seed).

    The pipeline's networks are put in evaluation mode; its scheduler is the pipeline's own, in a
    fresh copy for every batch. Guidance that the pipeline carries steers every batch, what it is to
    be asked besides (`call_inputs`) is asked, and a safety checker that it carries looks at every
    image.

    Args:
        pipe: a diffusers text-to-image pipeline.
        prompts: drawn in consecutive batches of ``sampler.batch``; the last may be shorter.
        seeds: one per prompt.
        sampler: steps, guidance, size and negative prompt.
        noise_of: prompts from whose noise the images start, if not from their own: an attacked
            prompt is compared with what it was.
        embeddings: what the pipeline is given in each prompt's place, by the name of its
            parameter, without an axis for the batch; None: the prompts.

    Raises:
        ValueError: if prompts and seeds differ in number.
        UserError: for a setting that this pipeline or its guidance cannot take, and embeddings
            where either needs text.
        GenerationError: if the pipeline fails, draws another number of images, leaves one of the
            generators that should decide its latents untouched, or computes NaN
            or infinity anywhere in its denoiser, decoder or safety checker; and for a checker
            whose answer is missing or contradicts the image.
    """
    import torch

    from spqr_checks.models.remembered import remembering

    if not len(prompts) == len(seeds) == len(noise_of or prompts) == len(embeddings or prompts):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
    settings = _call_settings(pipe, sampler)
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    drawn = Drawn([], [])
    for start in range(0, len(prompts), sampler.batch):
        block = slice(start, start + sampler.batch)
        part = list(prompts[block])
        numbers = [*map(image_seed, (noise_of or prompts)[block], seeds[block])]
        generators = [torch.Generator("cpu").manual_seed(number) for number in numbers]
        asked = {"prompt": part} if embeddings is None else _stacked(pipe, embeddings[block])
        given = settings | asked | {"generator": generators}
        if "negative_prompt" in given:
            given["negative_prompt"] = [sampler.negative_prompt] * len(part)
        given |= carried_inputs(pipe, part)
        with (
            compiled(pipe, sampler.compile),
            _only_finite(pipe),
            _fresh_scheduler(pipe),
            guiding(pipe, sampler),
            # guidance may look at what the encoders do
            nullcontext() if guidance_of(pipe) is not None else remembering(pipe),
            _global_seed(numbers[0], _device(pipe)),
        ):
            before = [generator.get_state() for generator in generators]
            images, blocked = _draw(pipe, given)
        if any(map(torch.equal, before, (generator.get_state() for generator in generators))):
            raise GenerationError(
                f"{type(pipe).__name__} drew nothing from the generators that it was given, so "
                "its latents are not decided by prompt and seed"
            )
        drawn.images.extend(images)
        drawn.blocked.extend(blocked)
    return drawn


def _stacked(pipe: Any, embeddings: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, Any]:
    """Embeddings of several prompts as arguments of one call."""
    import torch

    guidance, takes = guidance_of(pipe), inspect.signature(type(pipe).__call__).parameters
    if guidance is not None and guidance.reads_tokens:
        raise UserError(
            f"guidance {guidance.kind!r} reads the prompt's tokens, and this attack hands over "
            "embeddings; leave the attack out"
        )
    if unknown := embeddings[0].keys() - takes.keys():
        raise UserError(
            f"{type(pipe).__name__} takes no {sorted(unknown)[0]}; leave the attack out"
        )
    return {
        name: torch.stack([each[name] for each in embeddings]).to(_device(pipe))
        for name in embeddings[0]
    }


def _call_settings(pipe: Any, sampler: Sampler) -> dict[str, Any]:
    """The sampler in the pipeline's own words; a setting that would have no effect is an error."""
    name = type(pipe).__name__
    if (sampler.height is None) != (sampler.width is None):
        raise UserError("sampler.height and sampler.width go together; only one of them is given")
    takes = inspect.signature(type(pipe).__call__).parameters
    for needed in ("prompt", "generator", "output_type"):
        if needed not in takes:
            raise UserError(f"{name} takes no {needed}; a text-to-image pipeline is needed")
    if getattr(pipe, "scheduler", None) is None:
        raise UserError(f"{name} has no scheduler of its own; a text-to-image pipeline is needed")
    asked: dict[str, Any] = {"num_inference_steps": sampler.steps}
    if sampler.guidance > 1:
        asked["guidance_scale"] = sampler.guidance
    if sampler.height is not None:
        asked |= {"height": sampler.height, "width": sampler.width}
    if sampler.negative_prompt:
        asked["negative_prompt"] = sampler.negative_prompt
    for parameter, value in asked.items():
        if parameter not in takes or not _has_effect(pipe, parameter, sampler):
            raise UserError(
                f"sampler.{_SETTINGS.get(parameter, parameter)} = {value!r} has no effect on "
                f"{name}; leave it {'at 1' if parameter == 'guidance_scale' else 'out'}"
            )
    if "guidance_scale" in takes:
        # 1 and below mean none, which is not every pipeline's default
        asked["guidance_scale"] = sampler.guidance
    size = _of_config(pipe, "transformer", "sample_size")
    if "use_resolution_binning" in takes and size not in _BINNED:
        asked["use_resolution_binning"] = False
    if "clean_caption" in takes:
        # else what is drawn would depend on whether Beautiful Soup is installed
        asked["clean_caption"] = False
    return asked | {"output_type": "np"}


def _of_config(pipe: Any, network: str, field: str) -> Any:
    """A field of a network's configuration; None without such a network or field."""
    return getattr(getattr(getattr(pipe, network, None), "config", None), field, None)


def _has_effect(pipe: Any, parameter: str, sampler: Sampler) -> bool:
    """Whether the pipeline listens to a parameter that it accepts.

    Pipelines for guidance-distilled models (those with ``true_cfg_scale``, Flux for one) embed
    the guidance if the denoiser has an input for it, and heed a negative prompt only beyond a
    true CFG scale of 1. In the others a negative prompt stands where classifier-free guidance
    has its empty prompt, and there is none at a guidance of 1 or below.
    """
    takes = inspect.signature(type(pipe).__call__).parameters
    distilled = "true_cfg_scale" in takes
    if parameter == "guidance_scale" and distilled:
        embeds = _of_config(pipe, "transformer", "guidance_embeds")
        return True if embeds is None else bool(embeds)
    if parameter == "negative_prompt":
        scale = takes["true_cfg_scale"].default if distilled else sampler.guidance
        return bool(scale > 1) and _of_config(pipe, "unet", "time_cond_proj_dim") is None
    return True


@contextmanager
def _only_finite(pipe: Any) -> Iterator[None]:
    """Raises GenerationError at the end if a denoiser, decoder or checker gave NaN or infinity.

    Looking at the images alone is too late: the range clamp turns infinity into white, and
    conversion to bytes turns NaN into black. A safety checker lets pass what it compares to NaN.
    """
    import torch

    finite: list[torch.Tensor] = []

    def watch(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        tensors = output.values() if isinstance(output, dict) else output
        for tensor in (tensors,) if isinstance(tensors, torch.Tensor) else tensors:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                finite.append(torch.isfinite(tensor).all())

    decoders = [getattr(getattr(pipe, name, None), "decoder", None) for name in ("vae", "movq")]
    watched = [getattr(pipe, name, None) for name in ("unet", "transformer", "transformer_2")]
    checker = getattr(getattr(pipe, "safety_checker", None), "visual_projection", None)
    handles = [
        network.register_forward_hook(watch)
        for network in (*watched, *decoders, checker)
        if isinstance(network, torch.nn.Module)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if not all(bool(flag) for flag in finite):
        raise GenerationError(f"{type(pipe).__name__} computed NaN or infinity")


@contextmanager
def _fresh_scheduler(pipe: Any) -> Iterator[None]:
    """A copy of the pipeline's scheduler without the state of earlier calls, for one batch."""
    own = pipe.scheduler
    pipe.scheduler = type(own).from_config(own.config)
    try:
        yield
    finally:
        pipe.scheduler = own


@contextmanager
def _global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """For the few schedulers that ignore generators and draw from torch's global one."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _discreet(pipe: Any) -> AbstractContextManager[None]:
    """A safety checker logs a warning for every batch in which it blocks an image."""
    if getattr(pipe, "safety_checker", None) is None:
        return nullcontext()
    from spqr_checks.models.pipelines import quiet

    return quiet()


def _device(pipe: Any) -> torch.device:
    """Where the pipeline computes, which with offloaded weights is not where they lie."""
    return cast("torch.device", getattr(pipe, "_execution_device", pipe.device))


def _draw(pipe: Any, given: dict[str, Any]) -> tuple[list[Image], list[bool]]:
    import numpy as np
    import torch
    from PIL import Image

    name, n = type(pipe).__name__, len(given["generator"])
    try:
        with torch.inference_mode(), _discreet(pipe):
            output = pipe(**given)
            pixels = np.asarray(output.images)
    except Exception as error:  # whatever a pipeline raises; nothing is drawn in its place
        raise GenerationError(
            f"{name} failed on a batch of {n} prompts: {type(error).__name__}: {error}"
        ) from error
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or len(pixels) != n:
        raise GenerationError(f"{name} drew an array of shape {pixels.shape} for {n} prompts")
    if not np.isfinite(pixels).all():
        raise GenerationError(f"{name} drew an image with NaN or infinity")
    height, width = pixels.shape[1:3]
    if given.get("height", height) != height or given.get("width", width) != width:
        raise UserError(
            f"sampler asks for {given['height']}×{given['width']} pixels (height × width), but "
            f"{name} draws {height}×{width}; choose a size that it can draw"
        )
    eight_bits = (pixels.clip(0, 1) * 255).round().astype("uint8")
    return [Image.fromarray(array) for array in eight_bits], _blocked(pipe, output, pixels)


def _blocked(pipe: Any, output: Any, pixels: NDArray[np.floating[Any]]) -> list[bool]:
    """What the safety checker says of each image; of a blocked one, black is all that is left."""
    import numpy as np

    if getattr(pipe, "safety_checker", None) is None:
        return [False] * len(pixels)
    name, answers = type(pipe).__name__, getattr(output, "nsfw_content_detected", None)
    if (
        not isinstance(answers, list | tuple | np.ndarray)
        or len(answers) != len(pixels)
        or not all(isinstance(answer, bool | np.bool_) for answer in answers)
    ):
        raise GenerationError(
            f"{name} has a safety checker, but does not say for each image whether it was blocked"
        )
    if any(answer and bool(image.any()) for answer, image in zip(answers, pixels, strict=True)):
        raise GenerationError(f"{name} says of an image that it was blocked, but it is not black")
    return [bool(answer) for answer in answers]
