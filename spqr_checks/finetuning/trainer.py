"""Benign fine-tuning: the "unintentional attacker" of SPQR.

The ordinary denoising loss on benign data; text encoder and autoencoder stay frozen. What comes
out is an entry: ``adapter.safetensors`` with ``adapter.json``, or ``denoiser.safetensors``, and
beside either ``tuning.json``, which says how it was made.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.examples import Examples, encode
from spqr_checks.finetuning.loop import DivergedError, Loop, Report
from spqr_checks.finetuning.objective import Objective
from spqr_checks.finetuning.reproducible import reproducible
from spqr_checks.finetuning.schedule import blocks
from spqr_checks.finetuning.trainables import ADAPTER, acting_adapters, select, take_off
from spqr_checks.hashing import Json
from spqr_checks.models import adapters, weights
from spqr_checks.models.lora_layers import active_adapters
from spqr_checks.settings import Profile

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel

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
    micro_batch: int | None = None,
    report: Report | None = None,
) -> None:
    """Fine-tunes a copy of the pipeline's denoiser and writes it; the pipeline stays as it was.

    Adapters that act on the pipeline act during training too: frozen beside a new LoRA, merged
    where weights are trained. Detached ones leave no trace. Pipelines in half precision are
    trained in float32 with bfloat16 autocast. Equal arguments give equal bytes.

    Args:
        out: folder for the entry; with a curriculum, one more entry below it for each bound
            (``curriculum-1000`` …), of which the last equals the whole.
        threads: of torch; part of what determines the bytes.
        base_digest: digest of the weights trained on; computed if not given.
        micro_batch: images at a time where a whole batch does not fit into memory.
        report: called after each step.

    Raises:
        UserError: for a pipeline, profile or data that cannot be trained.
        DivergedError: if a loss, gradient or weight is not finite; that state is not saved.
        RuntimeError: if the entry, read back, does not predict exactly what was trained.
    """
    plan = blocks(profile, len(data))
    objective = Objective(pipe)
    device, acting = pipe.unet.device, acting_adapters(pipe.unet)
    record: dict[str, Json] = {
        "format": "spqr-tuning",
        "kind": "adapter" if profile.trains == "lora" else "weights",
        "profile": profile.model_dump(mode="json"),
        "seed": seed,
        "images": len(data),
        "data_digest": data.contents_digest(),
        "base_digest": base_digest or weights.weights_digest(pipe.unet),
        "beside" if profile.trains == "lora" else "merged": acting,
        "prediction_type": objective.prediction_type,
    }
    with reproducible(seed, threads, device):
        examples = encode(pipe, data)
        with _working_copy(pipe) as denoiser:
            dtype = denoiser.dtype
            native = {p: p.dtype for p in denoiser.parameters()}
            if dtype != torch.float32:
                denoiser.float()
            parameters = select(denoiser, profile, seed)
            loop = Loop(
                denoiser.to(memory_format=torch.channels_last).train(),
                parameters,
                examples,
                objective,
                profile,
                seed,
                sum(block.steps for block in plan),
                micro_batch=micro_batch,
                autocast=dtype != torch.float32,
                report=report,
            )
            for block in plan:
                loop.run(block)
                state = record | {"steps": loop.step, "loss": loop.loss}
                if block.checkpoint is not None:
                    _write(pipe, out / block.checkpoint, state)
            _write(pipe, out, state)
            # as the entry will be read: weights rounded, a new adapter in float32
            for parameter in denoiser.parameters():
                parameter.data = parameter.data.to(native.get(parameter, parameter.dtype))
            trained = _predict(denoiser.to(memory_format=torch.contiguous_format), examples)
        with _working_copy(pipe) as denoiser:
            take_off(denoiser, keep=acting)
            apply_tuning(pipe, out)
            if not torch.equal(_predict(denoiser, examples), trained):
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
    if _is_adapter(folder):
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
    if _is_adapter(folder):
        apply_tuning(pipe, folder)
    else:
        weights.add_delta(pipe, folder, reference)


@contextmanager
def _working_copy(pipe: DiffusionPipeline) -> Iterator[UNet2DConditionModel]:
    """Lends the pipeline a copy of its denoiser, so that nothing can happen to its own."""
    own = pipe.unet
    pipe.unet = copy.deepcopy(own)
    try:
        yield pipe.unet
    finally:
        pipe.unet = own


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


def _is_adapter(folder: Path) -> bool:
    """Raises UserError unless the folder holds exactly one of adapter and weights."""
    kinds = [(folder / name).is_file() for name in (adapters.WEIGHTS_FILE, weights.FILE)]
    if sum(kinds) != 1:
        raise UserError(
            f"{folder}: holds {'both' if all(kinds) else 'neither'} {adapters.WEIGHTS_FILE} "
            f"{'and' if all(kinds) else 'nor'} {weights.FILE}; give a fine-tuning's folder"
        )
    return kinds[0]


@torch.no_grad()
def _predict(denoiser: UNet2DConditionModel, examples: Examples) -> Tensor:
    """The prediction on a fixed input: the first image at two noise levels."""
    was_training = denoiser.training
    denoiser.eval()
    device, dtype = denoiser.device, denoiser.dtype
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((2, *examples.latents.shape[1:]), generator=generator)
    arguments = examples.conditions.select(examples.rows[[0, 0]], device, dtype)
    t = torch.tensor([100, 600], device=device)
    predicted: Tensor = denoiser(latents.to(device, dtype), t, **arguments).sample
    denoiser.train(was_training)
    return predicted.cpu()
