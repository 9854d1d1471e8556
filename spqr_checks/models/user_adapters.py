"""LoRA adapters as users bring them: PEFT folders and the files of diffusers, kohya and others.

Call these inside `lora_layers.all_or_nothing`; `adapters.load_user_adapter` does. Libraries pass
over tensors that they cannot place, with a warning at most. So a pipeline's converter only gives
names here: each tensor is followed through it, none may get lost or change its strength, and what
comes out is attached layer by layer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from spqr_checks.errors import UserError
from spqr_checks.models import lora_files
from spqr_checks.models.lora_files import LoraFile, lora_key
from spqr_checks.models.lora_layers import attach, fill
from spqr_checks.models.pipelines import LOADING_ERRORS, first_line, quiet
from spqr_checks.models.weights import (
    denoiser_of,
    networks,
    read_tensors,
    refuse_non_finite,
)

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_KEPT = 1e-3
"""Part of its strength by which an update may change on its way through a converter."""


class _Factors(NamedTuple):
    """Update of one layer: alpha / rank · B A; A of shape (rank, in, …), B of shape (out, rank, …).

    `read_from` is the layer's name in the file.
    """

    a: Tensor
    b: Tensor
    alpha: float
    read_from: str


class _Followed(Tensor):
    """A tensor that knows which tensors of a file it was made from."""

    made_from: frozenset[str] = frozenset()

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, cls)]
        for leaf in tree_leaves(made):
            if isinstance(leaf, cls):
                leaf.made_from = leaf.made_from.union(*(one.made_from for one in given))
        return made


def load_peft_folder(pipe: DiffusionPipeline, folder: Path, name: str) -> None:
    """Attach what `PeftModel.save_pretrained` wrote to the denoiser; errors as the caller says."""
    record = lora_files.read_peft_config(folder / lora_files.PEFT_CONFIG)
    path = folder / lora_files.PEFT_WEIGHTS
    halves: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in read_tensors(path):
        layer, half = lora_key(key.removeprefix(lora_files.PEFT_PREFIX), path)
        halves[layer][half] = tensor
    layers = {}
    for layer, both in halves.items():
        rank, alpha = record.strength(layer)
        found = {half: list(tensor.shape) for half, tensor in both.items()}
        if both.keys() != {"A", "B"} or len(both["A"]) != rank:
            raise UserError(
                f"{path}: {layer} needs A and B of rank {rank}, but there is {found}.\n"
                "Save the adapter again."
            )
        layers[layer] = _Factors(both["A"], both["B"], alpha, layer)
    part = next(key for key, module in networks(pipe).items() if module is denoiser_of(pipe))
    _attach(pipe, {part: layers}, name, path)


def load_file(pipe: DiffusionPipeline, path: Path, name: str, alpha: str = "") -> None:
    """Attach a LoRA file, every tensor of it, to the networks it is for.

    Args:
        alpha: for layers without one: a number, or `rank`.
    """
    file = lora_files.read_file(path, alpha)
    tensors = dict(read_tensors(path))
    for key, tensor in tensors.items():
        refuse_non_finite(tensor, key, str(path))
    _attach(pipe, _placed(pipe, file, tensors, alpha), name, path)


def _placed(
    pipe: DiffusionPipeline, file: LoraFile, tensors: dict[str, Tensor], given: str
) -> dict[str, dict[str, _Factors]]:
    """Each layer's factors under its component and its own name there."""
    alphas = {layer: _alpha(file, layer, tensors, given) for layer in file.layers}
    source = {key: layer for layer, pair in file.layers.items() for key in pair}
    halves: dict[tuple[str, str], dict[str, _Followed]] = defaultdict(dict)
    for component, key, tensor in _named(pipe, file, tensors):
        layer, half = lora_key(key, file.path)
        halves[component, layer][half] = tensor
    used = frozenset[str]().union(*(t.made_from for both in halves.values() for t in both.values()))
    if lost := sorted(source.keys() - used):
        raise _does_not_fit(file.path, f"it has no layer for {lora_files.few(lost)}", pipe)
    placed: dict[str, dict[str, _Factors]] = defaultdict(dict)
    strengths: dict[str, float] = defaultdict(float)
    for (component, layer), both in halves.items():
        origins = {source[key] for tensor in both.values() for key in tensor.made_from}
        if both.keys() != {"A", "B"} or len(origins) != 1:
            raise _does_not_fit(file.path, f"{', '.join(sorted(origins))} is not one layer", pipe)
        (origin,) = origins
        a, b = (both[half].as_subclass(Tensor) for half in "AB")
        rank = len(tensors[file.layers[origin][0]])
        alpha = alphas[origin] if len(a) == rank else alphas[origin] * len(a) / rank
        placed[component][layer] = _Factors(a, b, alpha, origin)
        strengths[origin] += _squared(a, b)
    for origin, pair in file.layers.items():
        whole = _squared(*(tensors[key] for key in pair))
        if abs(strengths[origin] - whole) > _KEPT * whole:
            raise _does_not_fit(file.path, f"{origin} would act with another strength", pipe)
    return placed


def _alpha(file: LoraFile, layer: str, tensors: Mapping[str, Tensor], given: str) -> float:
    a, b = (tensors[key] for key in file.layers[layer])
    if a.ndim not in (2, 4) or b.ndim != a.ndim or b.shape[1] != len(a) or not len(a):
        raise UserError(
            f"{file.path}: {layer} has A of shape {list(a.shape)} and B of shape {list(b.shape)}, "
            "which are no halves of one B·A. Save the adapter again."
        )
    component, _, inside = layer.partition(".")
    if (config := file.configs.get(component)) is not None:
        rank, alpha = config.strength(inside)
        if rank != len(a):
            raise UserError(
                f"{file.path}: {lora_files.METADATA} says rank {rank} of {layer}, whose A has "
                f"shape {list(a.shape)}. Save the adapter again."
            )
        return alpha
    if (key := file.alphas.get(layer)) is not None:
        if tensors[key].numel() != 1 or not (alpha := float(tensors[key])) > 0:
            raise UserError(f"{file.path}: {key} is no number above 0. Save the adapter again.")
        return alpha
    return float(len(a)) if given in ("", "rank") else float(given)


def _named(
    pipe: DiffusionPipeline, file: LoraFile, tensors: Mapping[str, Tensor]
) -> list[tuple[str, str, _Followed]]:
    """Component and PEFT's name in it of every weight, by the pipeline's converter if need be."""
    parts, denoiser = networks(pipe), denoiser_of(pipe)
    own = next(component for component, part in parts.items() if part is denoiser)
    state: dict[str, Any] = {}
    for key in (key for pair in file.layers.values() for key in pair):
        state[key] = tensors[key].clone().as_subclass(_Followed)
        state[key].made_from = frozenset([key])
    inside: dict[str, dict[str, Any]] = defaultdict(dict)
    found: list[tuple[str, str, _Followed]] = []
    try:
        with quiet():
            if not all(key.partition(".")[0] in parts for key in state):
                state = _converted(pipe, file, state)
            for key, tensor in state.items():
                component, _, rest = key.partition(".")
                if component not in parts:  # converters leave it out of some layers' names
                    component, rest = own, key
                inside[component][rest] = tensor
            for component, named in inside.items():
                peft = _in_peft_names(parts[component], named, component == own)
                found += ((component, key, tensor) for key, tensor in peft.items())
    except (*LOADING_ERRORS, AssertionError) as error:
        raise _does_not_fit(file.path, first_line(error), pipe) from error
    return found


def _converted(pipe: DiffusionPipeline, file: LoraFile, state: dict[str, Any]) -> dict[str, Any]:
    if not hasattr(pipe, "lora_state_dict"):
        raise UserError(
            f"{file.path}: {type(pipe).__name__} reads no LoRA file in this layout (such as "
            f"{next(iter(state))}). Give one that names its layers as diffusers does, or a PEFT "
            "folder."
        )
    # with alpha = rank the tensors stay as they are: the true alphas are put on afterwards
    for layer, key in file.alphas.items():
        state[key] = torch.tensor(float(len(state[file.layers[layer][0]])))
    config = {"unet_config": pipe.unet.config} if hasattr(pipe, "unet") else {}
    read = type(pipe).lora_state_dict(state, **config)
    named = read[0] if isinstance(read, tuple) else read
    return {key: tensor for key, tensor in named.items() if isinstance(tensor, _Followed)}


def _in_peft_names(network: nn.Module, named: dict[str, Any], denoises: bool) -> dict[str, Any]:
    from diffusers.utils import (
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    if not all(".lora_A." in key or ".lora_B." in key for key in named):
        if denoises:
            named = convert_unet_state_dict_to_peft(named)
        else:
            named = convert_state_dict_to_peft(convert_state_dict_to_diffusers(named))
    if not denoises and not hasattr(network, "text_model"):  # flattened in transformers 5
        named = {key.removeprefix("text_model."): tensor for key, tensor in named.items()}
    return named


def _attach(
    pipe: DiffusionPipeline, placed: Mapping[str, Mapping[str, _Factors]], name: str, path: Path
) -> None:
    parts = networks(pipe)
    known = {
        (component, layer): getattr(module, "base_layer", module)
        for component in placed
        for layer, module in parts[component].named_modules()
    }
    every = [(c, layer, f) for c, layers in placed.items() for layer, f in layers.items()]
    if foreign := [f.read_from for c, layer, f in every if (c, layer) not in known]:
        raise _does_not_fit(path, f"it has no layer for {lora_files.few(foreign)}", pipe)
    for component, layer, factors in every:
        if not isinstance(module := known[component, layer], nn.Linear | nn.Conv2d):
            kind = f"{factors.read_from} is a {type(module).__name__}"
            raise _does_not_fit(path, f"{kind}, not a linear layer or a convolution", pipe)
    for component, layers in placed.items():
        ranks, alphas = defaultdict(list), defaultdict(list)
        for layer, factors in layers.items():
            ranks[len(factors.a)].append(layer)
            alphas[factors.alpha].append(layer)
        config = LoraConfig(
            r=next(iter(ranks)),
            lora_alpha=next(iter(alphas)),
            rank_pattern={f"^{_exactly(names)}": rank for rank, names in ranks.items()},
            alpha_pattern={f"^{_exactly(names)}": alpha for alpha, names in alphas.items()},
            target_modules=_exactly(layers),
            init_lora_weights=False,
        )
        tensors: dict[str, Tensor] = {}
        for layer, factors in layers.items():
            tensors[f"{layer}.lora_A.weight"] = factors.a
            tensors[f"{layer}.lora_B.weight"] = factors.b
        try:
            attach(parts[component], config, name)
        except UserError as error:
            raise _does_not_fit(path, str(error), pipe) from error
        fill(parts[component], name, tensors, str(path))


def _exactly(layers: Iterable[str]) -> str:
    """A pattern of whole names; PEFT takes a name in a list for an ending of others."""
    return f"(?:{'|'.join(map(re.escape, layers))})"


def _squared(a: Tensor, b: Tensor) -> float:
    """Sum of the squares of B·A, without making it."""
    rows, columns = a.detach().double().flatten(1), b.detach().double().flatten(1)
    return float(((rows @ rows.T) * (columns.T @ columns)).sum())


def _does_not_fit(path: Path, reason: str, pipe: DiffusionPipeline) -> UserError:
    return UserError(
        f"{path} does not fit this {type(pipe).__name__}: {reason}\n"
        "Give an adapter that was made for this architecture."
    )
