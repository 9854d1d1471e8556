"""Modular entries: the seal on a safety adapter, its check, and W0 + ΔW_safe + ΔW_ft.

The seal, ``modular.json``, says that a model is safe only together with this adapter and only on
this base. A seal whose adapter is missing, changed or put on another base is refused, so that the
base is never taken for the safe model. Light: torch is imported where weights are needed.

Fine-tunings are read as the entries and adapters that ``models`` knows. What fine-tuning itself
does is no concern of this file; of its record only the base's digest and the adapters that acted
are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

SEAL = "modular.json"
SAFETY, TUNING = "safety", "tuning"
"""Names of the two adapters on an assembled pipeline."""

_FORMAT = "spqr-modular"
_ADAPTER, _CONFIG, _WEIGHTS = "adapter.safetensors", "adapter.json", "denoiser.safetensors"
_TUNING_RECORD = "tuning.json"
_SEALED = {"sha256": _ADAPTER, "config_sha256": _CONFIG}


def seal(folder: Path) -> None:
    """Seals the adapter entry in a folder.

    Raises:
        UserError: it holds no adapter, or one that does not say what base it was trained on.
    """
    base = _read(folder / _CONFIG).get("base_digest")
    if not isinstance(base, str):
        raise UserError(f"{folder / _CONFIG}: no base_digest; align again")
    record: dict[str, Json] = {
        "format": _FORMAT,
        "base_digest": base,
        "scale": 1.0,
        "attach": "base",
    }
    for key, name in _SEALED.items():
        record[key] = _sha256(folder / name)
    text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False)
    (folder / SEAL).write_text(text + "\n", encoding="utf-8")


def verify(pipe: DiffusionPipeline, folder: Path) -> None:
    """Refuses a sealed entry that is not whole or belongs to another base; others it lets pass.

    Adapters on the pipeline do not matter, weights that were merged or trained do.

    Raises:
        UserError: the seal cannot be read, a sealed file is missing or changed, or the denoiser's
            weights are not those that the adapter was trained on.
    """
    if (folder / SEAL).exists():
        _verify(pipe, folder)


def assemble(
    pipe: DiffusionPipeline, safety: Path, tuning: Path | None, safety_scale: float = 1.0
) -> None:
    """Puts a safety adapter, and a user's fine-tuning beside it, on the original model.

    The pipeline then draws with W0 + scale · ΔW_safe + ΔW_ft. Adapters stay adapters, named
    ``safety`` and ``tuning``: ``adapters.remove`` takes either off again. Safety comes first: if
    the fine-tuning does not fit, the pipeline is left as the safe model.

    Args:
        pipe: the original model, W0; adapters may be on it.
        safety: an entry of the method ``modular-lora``.
        tuning: a fine-tuning of W0: an entry, adapter or whole weights (of which the difference
            to W0 is added to the weights), or an adapter that a user brings.
        safety_scale: of ΔW_safe; anything but 1 is not the model that was measured.

    Raises:
        UserError: the safety entry is not sealed or is refused by ``verify``, or the fine-tuning
            is incomplete, does not fit, or says that it was trained on something else than W0
            without adapters.
        ValueError: adapters of these names are on the pipeline.
    """
    from spqr_checks.models import adapters, weights

    if not (safety / SEAL).exists():
        raise UserError(f"{safety}: no {SEAL}; give a folder that the method modular-lora wrote")
    base = _verify(pipe, safety)
    original: Mapping[str, Tensor] | None = None
    if tuning is not None:
        _check_tuning(tuning, base)
        if (tuning / _WEIGHTS).is_file():
            original = weights.copy_state(pipe)
    adapters.load_adapter(pipe, safety, SAFETY, safety_scale)
    if original is not None and tuning is not None:
        weights.add_delta(pipe, tuning, original)
    elif tuning is not None:
        adapters.load_user_adapter(pipe, tuning, name=TUNING)


def _verify(pipe: DiffusionPipeline, folder: Path) -> str:
    """Checks a seal; returns the digest of the base."""
    path = folder / SEAL
    record = _read(path)
    expected = {"format": _FORMAT, "scale": 1.0, "attach": "base"}
    for key, value in expected.items():
        if record.get(key) != value:
            raise UserError(f"{path}: {key} is {record.get(key)!r}, not {value!r}; align again")
    for key, name in _SEALED.items():
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name} is missing, and without it the model is not the safe one; "
                "restore it or align again"
            )
        if record.get(key) != _sha256(folder / name):
            raise UserError(
                f"{folder / name} is not the file that {SEAL} names ({key} differs); "
                "restore it or align again"
            )
    from spqr_checks.models import weights

    base, found = record.get("base_digest"), weights.weights_digest(weights.denoiser_of(pipe))
    if base != found:
        raise UserError(
            f"{path}: the safety adapter belongs to a denoiser with digest {base}, this one has "
            f"{found};\nput it on the original weights in the precision they were aligned in, or "
            "align this model"
        )
    return found


def _check_tuning(tuning: Path, base: str) -> None:
    """Raises UserError for a fine-tuning that says it was not trained on the bare base."""
    if (tuning / _WEIGHTS).is_file() and (tuning / _ADAPTER).is_file():
        raise UserError(f"{tuning}: holds both {_ADAPTER} and {_WEIGHTS}; give a fine-tuning's")
    for name in (_TUNING_RECORD, _CONFIG):
        path = tuning / name
        if not path.is_file():
            continue
        record = _read(path)
        if record.get("base_digest", base) != base:
            raise UserError(
                f"{path}: fine-tuned on a denoiser with digest {record['base_digest']}, not on the "
                f"safety adapter's base ({base});\nfine-tune the original weights"
            )
        acted = record.get("beside") or record.get("merged")
        if acted:
            raise UserError(
                f"{path}: the adapters {acted} acted while it was trained;\nfine-tune the "
                "original weights with the safety adapter detached"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it or align again") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}: holds no JSON object; restore it or align again")
    return record


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it or align again") from None
