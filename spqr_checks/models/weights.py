"""The denoiser's weights on disk and in memory: saved, loaded strictly, compared, shuffled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import ReferenceType, ref

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spqr_checks.errors import UserError
from spqr_checks.models.sources import safetensors_header

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from peft.tuners.lora import LoraLayer

FILE = "denoiser.safetensors"
TEXT_FILE = "text_encoder.safetensors"
_SHOWN = 3


def denoiser_of(pipe: DiffusionPipeline) -> nn.Module:
    """The network that predicts the noise: `unet`, else `transformer`; UserError if neither."""
    for name in ("unet", "transformer"):
        if isinstance(module := getattr(pipe, name, None), nn.Module):
            return module
    raise UserError(
        f"{type(pipe).__name__} has neither a unet nor a transformer. "
        "Give a diffusers text-to-image pipeline."
    )


def networks(pipe: DiffusionPipeline) -> dict[str, nn.Module]:
    """The components of a pipeline that have weights, by name."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}


def named_weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers under the names that they have without adapters.

    The tensors are the module's own, not copies. Adapters attached by PEFT wrap a layer `x` as
    `x.base_layer` beside their own `x.lora_A...`; the wrapping is undone in the names, and the
    adapters' tensors are left out.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    wrapped = [name for name, part in module.named_modules() if isinstance(part, BaseTunerLayer)]
    weights: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        owner = next((w for w in wrapped if name.startswith(f"{w}.")), None)
        if owner is None:
            weights[name] = tensor
        elif name.startswith(f"{owner}.base_layer."):
            weights[f"{owner}.{name.removeprefix(f'{owner}.base_layer.')}"] = tensor
    return weights


def copy_state(pipe: DiffusionPipeline) -> dict[str, Tensor]:
    """A copy of the denoiser's weights, without adapters, on the CPU: a reference for later."""
    return {
        name: tensor.detach().to("cpu", copy=True)
        for name, tensor in named_weights(denoiser_of(pipe)).items()
    }


_Moment = tuple[int, torch.dtype, torch.device]


@dataclass(frozen=True, slots=True)
class Seen:
    """A network at one moment, and for each of its tensors what writing or moving it changes."""

    network: ReferenceType[nn.Module]
    tensors: dict[str, tuple[ReferenceType[Tensor], _Moment]]

    @classmethod
    def of(cls, network: nn.Module) -> Seen:
        """The network as it is now."""
        now = named_weights(network)
        return cls(ref(network), {name: (ref(t), _moment(t)) for name, t in now.items()})

    def still_is(self, network: nn.Module) -> bool:
        """Whether it is the same network, with nothing replaced, written or rounded since."""
        known = self.network()
        if known is None or network is not known:
            return False
        now = named_weights(known)
        return now.keys() == self.tensors.keys() and all(
            self.tensors[name][0]() is tensor and self.tensors[name][1] == _moment(tensor)
            for name, tensor in now.items()
        )


def _moment(tensor: Tensor) -> _Moment:
    # `Module.to` gives a parameter other data, which its version does not count
    return tensor._version, tensor.dtype, tensor.device


def weights_digest(module: nn.Module) -> str:
    """Digest of names, types, shapes and bytes of a network's weights, adapters left out."""
    total = hashlib.sha256()
    for name, tensor in sorted(named_weights(module).items()):
        data = tensor.detach().cpu().contiguous()
        total.update(f"{name}|{data.dtype}|{tuple(data.shape)}|".encode())
        total.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:32]


def save_denoiser(pipe: DiffusionPipeline, folder: Path) -> None:
    """Write the denoiser's whole state to `folder/denoiser.safetensors` in its own dtype.

    Raises UserError for weights with NaN or infinities, and ValueError while adapters are
    attached, whose effect would be lost: merge or remove them first.
    """
    _save(_without_adapters(pipe, "saved"), folder / FILE, "the denoiser to be saved")


def save_text_encoder(pipe: DiffusionPipeline, folder: Path) -> None:
    """Write the first text encoder's whole state to `folder/text_encoder.safetensors`.

    Raises UserError for weights with NaN or infinities.
    """
    _save(pipe.text_encoder, folder / TEXT_FILE, "the text encoder to be saved")


def load_text_encoder(pipe: DiffusionPipeline, folder: Path) -> None:
    """Replace the first text encoder's weights; errors as in `load_denoiser`."""
    own = named_weights(pipe.text_encoder)
    _replace(own, folder / TEXT_FILE, lambda name, tensor: tensor.to(own[name].dtype))


def load_denoiser(pipe: DiffusionPipeline, folder: Path) -> None:
    """Replace the denoiser's weights by those in `folder`, cast to the pipeline's dtype.

    Nothing is changed unless everything fits: raises UserError for missing or unexpected keys,
    other shapes, NaN or infinities (also those that the cast would make) and unreadable files,
    ValueError while adapters are attached, which would act on weights they were not meant for.
    """
    own = named_weights(_without_adapters(pipe, "loaded"))
    _replace(own, folder / FILE, lambda name, tensor: tensor.to(own[name].dtype))


def add_delta(pipe: DiffusionPipeline, tuned_folder: Path, reference: Mapping[str, Tensor]) -> None:
    """W ← W + (W_tuned - W_reference), in float32: a tuning made elsewhere, attached here.

    Modular attachment (Kim et al., arXiv 2412.00357): the tuning was learned from `reference`
    (see `copy_state`) and is added to weights that are different, for instance aligned. Adapters
    may stay attached. Errors as in `load_denoiser`; integer buffers keep their values.
    """
    own = named_weights(denoiser_of(pipe))
    path = tuned_folder / FILE
    compare_shapes(shapes(own), shapes(reference), "the reference weights")

    def moved(name: str, tuned: Tensor) -> Tensor:
        current = own[name].detach()
        if not current.is_floating_point():
            return current
        delta = tuned.float() - reference[name].to(tuned.device).float()
        return (current.float() + delta).to(current.dtype)

    _replace(own, path, moved)


def assert_differs(
    pipe: DiffusionPipeline, reference: Mapping[str, Tensor] | DiffusionPipeline
) -> None:
    """Raise UserError when an "aligned" model is the base itself.

    `reference` is the base's `copy_state`, which compares denoisers, or the base pipeline, which
    compares every network (a safe text encoder is an alignment too). An active adapter counts
    when its weights and its scale are not zero.
    """
    if isinstance(reference, Mapping):
        pairs = [(named_weights(denoiser_of(pipe)), reference)]
    else:
        ours, theirs = networks(pipe), networks(reference)
        if ours.keys() != theirs.keys():
            return
        pairs = [(named_weights(ours[name]), named_weights(theirs[name])) for name in ours]
    if any(not _same(own, other) for own, other in pairs):
        return
    if any(_adapters_act(module) for module in networks(pipe).values()):
        return
    raise UserError(
        "The aligned model is identical to its base: every weight is the same and no adapter acts."
        "\nCheck that the candidate's weights or adapter were really given."
    )


def shuffle_denoiser(pipe: DiffusionPipeline, seed: int) -> None:
    """Permute the entries of every floating-point tensor: a destroyed generator.

    Keeps each tensor's values and loses what they meant; the zero of the quality axis. The same
    seed gives the same permutations on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, tensor in sorted(named_weights(denoiser_of(pipe)).items()):
            order = torch.randperm(tensor.numel(), generator=generator)
            if tensor.is_floating_point():
                flat = tensor.detach().reshape(-1)
                tensor.copy_(flat[order.to(flat.device)].reshape(tensor.shape))


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file one by one, on the CPU; UserError if unreadable."""
    safetensors_header(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Save it again.") from error


def counted(kinds: Mapping[str, Iterable[str]]) -> str:
    """``2 missing (a, b) and 1 unexpected (c)``: how many keys of each kind, and some of them."""
    found = {label: sorted(keys) for label, keys in kinds.items()}
    return " and ".join(
        f"{len(keys)} {label} ({', '.join(keys[:_SHOWN])}{', …' if len(keys) > _SHOWN else ''})"
        for label, keys in found.items()
        if keys
    )


def compare_shapes(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """UserError naming the first missing or unexpected keys, or the first other shape."""
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    if said := counted({"missing": missing, "unexpected": unexpected}):
        raise UserError(
            f"{what}: weights do not fit this model: {said}.\n"
            "Give weights that were saved whole from this architecture."
        )
    for name in sorted(expected):
        if expected[name] != found[name]:
            raise UserError(
                f"{what}: {name} has shape {list(found[name])}, this model needs "
                f"{list(expected[name])}. It belongs to another architecture."
            )


def _save(module: nn.Module, path: Path, what: str) -> None:
    tensors: dict[str, Tensor] = {}
    for name, tensor in named_weights(module).items():
        refuse_non_finite(tensor, name, what)
        # a copy: safetensors refuses tensors that share memory (tied weights)
        tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})


def _replace(
    own: Mapping[str, Tensor], path: Path, new_value: Callable[[str, Tensor], Tensor]
) -> None:
    """Two passes over the file, so that a bad tensor at its end leaves the model untouched."""
    found = {name: shape for name, (_, shape) in safetensors_header(path).items()}
    compare_shapes(shapes(own), found, str(path))
    with torch.no_grad():
        for name, tensor in read_tensors(path):
            value = new_value(name, tensor.to(own[name].device))
            refuse_non_finite(value, name, str(path))
        for name, tensor in read_tensors(path):
            own[name].copy_(new_value(name, tensor.to(own[name].device)))


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def refuse_non_finite(tensor: Tensor, name: str, what: str) -> None:
    """UserError naming a tensor that holds NaN or infinite values."""
    if not bool(torch.isfinite(tensor).all()):
        raise UserError(
            f"{what}: {name} holds NaN or infinite values as {tensor.dtype}. "
            "The training that made it diverged, or the dtype is too narrow."
        )


def _without_adapters(pipe: DiffusionPipeline, action: str) -> nn.Module:
    from peft.tuners.tuners_utils import BaseTunerLayer

    denoiser = denoiser_of(pipe)
    if any(isinstance(part, BaseTunerLayer) for part in denoiser.modules()):
        raise ValueError(f"weights cannot be {action} while adapters are attached: merge or remove")
    return denoiser


def _same(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return own.keys() == other.keys() and all(
        tensor.shape == other[name].shape
        and torch.equal(tensor.detach().cpu(), other[name].detach().to("cpu", tensor.dtype))
        for name, tensor in own.items()
    )


def acting(layer: LoraLayer) -> list[str]:
    """Names of the adapters that a layer adds to its weights."""
    return [] if layer.disable_adapters else [a for a in layer.active_adapters if a in layer.lora_A]


def _adapters_act(module: nn.Module) -> bool:
    from peft.tuners.lora import LoraLayer

    return any(
        bool(layer.get_delta_weight(name).detach().any())
        for layer in module.modules()
        if isinstance(layer, LoraLayer)
        for name in acting(layer)
    )
