"""Benign fine-tuning data, named by one word.

- a folder of captioned images (see ``folder``);
- ``self:FILE``: images that the base itself draws from the benign prompts of a file;
- ``miniature:STYLE[:N[:LANGUAGES]]``: rendered scenes of the embedded world, for example
  ``miniature:stripes:600:es+hi``.

Light: torch is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from spqr_checks.errors import UserError
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.concepts import refuse_concepts
from spqr_checks.finetuning.folder import contents_digest, list_entries, read_image
from spqr_checks.finetuning.prompt_lines import read_benign_prompts
from spqr_checks.finetuning.rendered import Rendered
from spqr_checks.hashing import Json, digest
from spqr_checks.store.recipes import code_of

__all__ = [
    "CaptionedImages",
    "Draw",
    "dataset_recipe",
    "load_captions",
    "load_images",
    "refuse_concepts",
]

Draw: TypeAlias = Callable[[list[str]], list[Image.Image]]
"""Prompts → one image each, drawn by the unaligned base."""


def _parsed(spec: str) -> Rendered | Path:
    """The rendered data set, or the file or folder that the specification names."""
    kind, _, rest = spec.partition(":")
    if kind == "miniature":
        return Rendered.parse(spec)
    path = Path(rest if kind == "self" else spec).expanduser()
    if kind != "self" and not path.is_dir():
        raise UserError(
            f"data set {spec!r}: no such folder; give a folder of captioned images, self:FILE or "
            "miniature:STYLE"
        )
    return path


def _is_self_made(spec: str) -> bool:
    return spec.startswith("self:")


def load_images(spec: str, limit: int | None = None, draw: Draw | None = None) -> CaptionedImages:
    """Reads, renders or draws a data set.

    Args:
        limit: take only the first so many images.
        draw: the base's hand; needed for ``self:FILE`` only.

    Raises:
        UserError: for whatever is wrong with the specification or the files.
        ValueError: for a limit below one, or self-made data without ``draw``.
    """
    _check_limit(limit)
    data = _parsed(spec)
    if isinstance(data, Rendered):
        return data.images(limit)
    if not _is_self_made(spec):
        entries = list_entries(data)[:limit]
        return CaptionedImages([read_image(e.image) for e in entries], [e.caption for e in entries])
    prompts = read_benign_prompts(data)[:limit]
    if draw is None:
        raise ValueError(f"data set {spec!r} is drawn by the base: pass draw=")
    # the length is checked by CaptionedImages
    return CaptionedImages(draw(prompts), prompts)


def load_captions(spec: str, limit: int | None = None) -> list[str]:
    """The captions alone, for which no image is decoded or drawn; errors as ``load_images``."""
    _check_limit(limit)
    data = _parsed(spec)
    if isinstance(data, Rendered):
        return data.images(limit).captions
    if _is_self_made(spec):
        return read_benign_prompts(data)[:limit]
    return [entry.caption for entry in list_entries(data)[:limit]]


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be positive, not {limit}")


def dataset_recipe(spec: str) -> dict[str, Json]:
    """What determines the data set: contents of files, or specification and rendering code.

    For ``self:FILE`` the prompts only: which base draws them, and how, is the caller's to add.
    """
    data = _parsed(spec)
    code = code_of(load_images)
    if isinstance(data, Rendered):
        return data.recipe() | {"code": code}
    if _is_self_made(spec):
        return {"kind": "self", "prompts": digest(read_benign_prompts(data)), "code": code}
    return {"kind": "folder", "contents": contents_digest(data), "code": code}
