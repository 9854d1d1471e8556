"""Benign fine-tuning: the "unintentional attacker" of SPQR.

The ordinary denoising loss on benign data; text encoder and autoencoder stay frozen. What comes
out is an entry: a LoRA adapter (see ``models.adapters``), or ``denoiser.safetensors``, and beside
either ``tuning.json``, which says how it was made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModelMixin
from torch import Tensor, nn

from spqr_checks.choices import Profile
from spqr_checks.errors import UserError
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.denoiser import (
    ADAPTER,
    Widened,
    acting_adapters,
    select,
    take_off,
    widened_whole,
    working_copy,
)
from spqr_checks.finetuning.examples import Examples, encode
from spqr_checks.finetuning.families.registry import family_of
from spqr_checks.finetuning.loop import DivergedError, Loop, Report, reproducible
from spqr_checks.finetuning.schedule import blocks
from spqr_checks.hashing import Json
from spqr_checks.models import adapters, weights
from spqr_checks.models.lora_layers import active_adapters

__all__ = ["DivergedError", "apply_tuning", "apply_tuning_delta", "finetune"]

RECORD = "tuning.json"


def finetune(
    pipe: DiffusionPipeline,
    data: CaptionedImages,
    profile: Profile,
    seed: int,
    out: Path,
    threads: int = 1,
    *,
    base_digest: str | None = None,
    report: Report | None = None,
) -> None:
    """Fine-tunes a copy of the pipeline's denoiser and writes it; the pipeline stays as it was.

    Adapters that act on the pipeline act during training too: frozen beside a new LoRA, merged
    where weights are trained. Detached ones leave no trace. What is trained is float32; pipelines
    in half precision are computed with bfloat16 autocast (see ``denoiser``). Equal arguments
    give equal bytes.

    Args:
        out: folder for the entry; with a curriculum, one more entry below it for each bound
            (``curriculum-1000`` …), of which the last equals the whole.
        threads: of torch; part of what determines the bytes.
        base_digest: digest of the weights trained on; computed if not given.
        report: called after each step.

    Raises:
        UserError: for a pipeline, profile or data that cannot be trained.
        DivergedError: if a loss, gradient or weight is not finite; that state is not saved.
        RuntimeError: if the entry, read back, does not predict exactly what was trained.
    """
    plan = blocks(profile, len(data))
    family = family_of(pipe)
    objective = family.objective(pipe)
    own = weights.denoiser_of(pipe)
    parameter = next(own.parameters())
    device, dtype, acting = parameter.device, parameter.dtype, acting_adapters(own)
    record: dict[str, Json] = {
        "format": "spqr-tuning",
        "kind": "adapter" if profile.trains == "lora" else "weights",
        "profile": profile.model_dump(mode="json"),
        "seed": seed,
        "images": len(data),
        "data_digest": data.contents_digest(),
        "base_digest": base_digest or weights.weights_digest(own),
        "beside" if profile.trains == "lora" else "merged": acting,
        "prediction_type": objective.prediction_type,
    }
    with reproducible(seed, threads, device):
        examples = encode(pipe, data, profile.resolution)
        with working_copy(pipe) as denoiser:
            widened = Widened(denoiser)
            if widened_whole(dtype, merges=bool(acting) and profile.trains != "lora"):
                widened.widen()
            parameters = select(denoiser, family, profile, seed)
            widened.widen(parameters)
            if profile.gradient_checkpointing:
                _checkpoint(denoiser)
            loop = Loop(
                denoiser.to(memory_format=torch.channels_last).train(),
                parameters,
                examples,
                objective,
                profile,
                seed=seed,
                steps=sum(block.steps for block in plan),
                autocast=dtype != torch.float32,
                report=report,
            )
            for block in plan:
                loop.run(block)
                state = record | {"steps": loop.step, "loss": loop.loss}
                if block.checkpoint is not None:
                    _write(pipe, out / block.checkpoint, state)
            _write(pipe, out, state)
            widened.restore()  # as the entry will be read
            denoiser.to(memory_format=torch.contiguous_format)
            trained = _predict(denoiser, examples, dtype)
            del denoiser, widened, parameters, loop  # room for the next copy
        with working_copy(pipe) as denoiser:
            take_off(denoiser, keep=acting)
            apply_tuning(pipe, out)
            if not torch.equal(_predict(denoiser, examples, dtype), trained):
                raise RuntimeError(f"{out}: the entry does not predict what was trained")


def apply_tuning(pipe: DiffusionPipeline, folder: Path) -> None:
    """Puts a fine-tuning on the model that it was trained on, or an equal one.

    An adapter acts beside those that act already. Weights replace the denoiser's; adapters that
    acted in training are contained in them and are taken off.

    Raises:
        UserError: for an entry that is incomplete or does not fit.
        ValueError: if other adapters act than in training.
    """
    denoiser = weights.denoiser_of(pipe)
    record = _read(folder)
    acting = acting_adapters(denoiser)
    if is_adapter(folder):
        if not acting and active_adapters(denoiser):
            raise ValueError("adapters are disabled, a new one would be too: detach them instead")
        adapters.load_adapter(pipe, folder, ADAPTER)
        return
    if acting != record.get("merged"):
        raise ValueError(
            f"{folder} was trained with the adapters {record.get('merged')}, not with {acting}; "
            "elsewhere it can be added by apply_tuning_delta"
        )
    take_off(denoiser)
    weights.load_denoiser(pipe, folder)


def apply_tuning_delta(
    pipe: DiffusionPipeline, folder: Path, reference: Mapping[str, Tensor]
) -> None:
    """Puts a fine-tuning on a model that it was not trained on (Modular LoRA, arXiv 2412.00357).

    Args:
        reference: the denoiser's weights that it was trained on; ``weights.copy_state``.

    Raises:
        UserError: for an entry that is incomplete or does not fit.
    """
    if is_adapter(folder):
        apply_tuning(pipe, folder)
    else:
        weights.add_delta(pipe, folder, reference)


def _checkpoint(denoiser: ModelMixin) -> None:
    """Switches gradient checkpointing on. UserError where the network knows none."""
    try:
        denoiser.enable_gradient_checkpointing()
    except (AttributeError, ValueError):
        raise UserError(
            f"{type(denoiser).__name__} has no gradient checkpointing; leave it out of the profile"
        ) from None


def _write(pipe: DiffusionPipeline, folder: Path, record: Mapping[str, Json]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if record["kind"] == "adapter":
        adapters.save_adapter(pipe, folder, ADAPTER, {"base_digest": record["base_digest"]})
    else:
        weights.save_denoiser(pipe, folder)
    text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a fine-tuning's record: {error}; fine-tune again") from None
    if not isinstance(record, dict) or record.get("format") != "spqr-tuning":
        raise UserError(f"{path}: not a fine-tuning's record; fine-tune again")
    return record


def is_adapter(folder: Path) -> bool:
    """Raises UserError unless the folder holds exactly one of adapter and weights."""
    kinds = [(folder / name).is_file() for name in (adapters.WEIGHTS_FILE, weights.FILE)]
    if sum(kinds) != 1:
        raise UserError(
            f"{folder}: holds {'both' if all(kinds) else 'neither'} {adapters.WEIGHTS_FILE} "
            f"{'and' if all(kinds) else 'nor'} {weights.FILE}; give a fine-tuning's folder"
        )
    return kinds[0]


@torch.no_grad()
def _predict(denoiser: nn.Module, examples: Examples, dtype: torch.dtype) -> Tensor:
    """The prediction on a fixed input: the first image's caption at two noise levels."""
    was_training = denoiser.training
    denoiser.eval()
    device = next(denoiser.parameters()).device
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((2, *examples.latents.shape[1:]), generator=generator)
    t = torch.tensor([100, 600], device=device)
    predicted = examples.conditions.predict(
        denoiser, latents.to(device, dtype), t, examples.rows[[0, 0]]
    )
    denoiser.train(was_training)
    return predicted.cpu()
