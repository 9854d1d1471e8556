"""The cosine of `clip` by a model of the open_clip library, in its own format.

A folder or Hub id with ``open_clip_config.json`` and ``open_clip_model.safetensors``, which
``open_clip.create_model_from_pretrained("local-dir:FOLDER")`` prefers over every other file and
loads strictly. What is said of ratios at `clip` holds here as well. Needs the extra ``open-clip``
(open_clip 3.0 or later, and torchvision with it).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.metrics.adherence import AdherenceKind
from spqr_checks.metrics.model_metrics import COMMON, Needs
from spqr_checks.models import sources
from spqr_checks.packages import importing

if TYPE_CHECKING:
    from PIL.Image import Image

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


@dataclass(frozen=True)
class OpenClip:
    """An open_clip model with its preprocessing and tokenizer."""

    model: Any
    preprocess: Any
    tokenizer: Any
    device: str

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Cosines. Raises JudgeError for an embedding with NaN or infinity."""
        import torch

        from spqr_checks.models.pretrained import BATCH

        cosines: list[float] = []
        for start in range(0, len(images), BATCH):
            part = [image.convert("RGB") for image in images[start : start + BATCH]]
            pixels = torch.stack([self.preprocess(image) for image in part]).to(self.device)
            tokens = self.tokenizer(list(prompts[start : start + BATCH])).to(self.device)
            with torch.inference_mode():
                seen = self.model.encode_image(pixels, normalize=True).double().cpu()
                said = self.model.encode_text(tokens, normalize=True).double().cpu()
            if len(seen) != len(part) or not (seen.isfinite() & said.isfinite()).all():
                raise JudgeError("open_clip gave an embedding of NaN or infinity, or too few")
            cosines += (seen * said).sum(-1).tolist()
        return cosines


def load_open_clip(source: str, device: str) -> OpenClip:
    """The model in a folder or of a Hub id.

    Raises:
        UserError: if the package or a file is missing, or the model cannot be loaded.
    """
    folder = sources.resolve(source)
    _check_folder(folder, source)
    with importing(source, "open_clip", extra="open-clip"):
        import open_clip
    name = f"local-dir:{folder}"
    try:
        model, preprocess = open_clip.create_model_from_pretrained(
            name, precision="fp32", device=device
        )
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # any failure to load ends here, as a message
        raise UserError(f"{source}: cannot be loaded by open_clip: {error}") from error
    return OpenClip(model.eval(), preprocess, tokenizer, device)


def _check_folder(folder: Path, source: str) -> None:
    """Refuses what open_clip would fetch from elsewhere, or read as a pickle.

    Raises:
        UserError: for missing files, or a configuration that names another repository's text model
            or asks for code of the model's own.
    """
    absent = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{source}: no {absent[0]}; a model in open_clip's format is needed here")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        text = dict(config["model_cfg"]["text_cfg"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: {CONFIG} cannot be read: {error!r}") from error
    if text.get("hf_model_name"):
        raise UserError(
            f"{source}: its text model is that of {text['hf_model_name']!r}, which open_clip would "
            "fetch; choose a model with a text model of its own"
        )
    if "trust_remote_code" in text.get("tokenizer_kwargs", {}):
        raise UserError(f"{source}: its tokenizer asks for code of its own, which is not run")


ADHERENCE = AdherenceKind(
    "cosine", load_open_clip, Needs((*COMMON, "open-clip-torch", "torchvision"), "open-clip")
)
