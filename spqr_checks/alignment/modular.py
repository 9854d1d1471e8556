"""Modular entries: the seal on a safety adapter, and its check.

The seal, ``modular.json``, says that a model is safe only together with this adapter and only on
this base. A seal whose adapter is missing, changed or put on another base is refused, so that the
base is never taken for the safe model. Light: torch is imported where weights are needed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SEAL = "modular.json"
_CONFIG = "adapter.json"
_SEALED = {"sha256": "pytorch_lora_weights.safetensors", "config_sha256": _CONFIG}
_FIXED: dict[str, Json] = {"format": "spqr-modular", "scale": 1.0, "attach": "base"}


def seal(folder: Path) -> None:
    """Seals the adapter entry in a folder.

    Raises UserError: it holds no adapter, or one that does not say what base it was trained on.
    """
    base = _read(folder / _CONFIG).get("base_digest")
    if not isinstance(base, str):
        raise UserError(f"{folder / _CONFIG}: no base_digest; align again")
    digests = {key: _sha256(folder / name) for key, name in _SEALED.items()}
    record = _FIXED | {"base_digest": base} | digests
    text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False)
    (folder / SEAL).write_text(text + "\n", encoding="utf-8")


def verify(pipe: DiffusionPipeline, folder: Path) -> None:
    """Refuses a sealed entry that is not whole or belongs to another base; others it lets pass.

    Adapters on the pipeline do not matter, weights that were merged or trained do. Raises
    UserError: the seal cannot be read, a sealed file is missing or changed, or the denoiser's
    weights are not those that the adapter was trained on.
    """
    path = folder / SEAL
    if not path.exists():
        return
    record = _read(path)
    for key, value in _FIXED.items():
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


def assemble(pipe: DiffusionPipeline, folder: str | Path) -> DiffusionPipeline:
    """Puts the safety adapter onto a base that is about to be served, and returns the pipeline.

    The adapter is merged: whatever is loaded, switched or taken off afterwards, it acts.

    Raises:
        UserError: as ``verify``, and for a folder without a seal, so that nothing is served as the
            safe model that is not.
    """
    from spqr_checks.models import adapters

    place = Path(folder)
    if not (place / SEAL).is_file():
        raise UserError(
            f"{place}: no {SEAL}, so that no safety adapter is sealed here; give what "
            "'spqr align modular-lora' wrote"
        )
    verify(pipe, place)
    adapters.load_adapter(pipe, place, "safety")
    adapters.merge(pipe)
    return pipe


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
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it or align again") from None
