"""Benign fine-tuning data, named by one word.

- a folder of captioned images (see ``captioned``), or its address on the Hub,
  ``hf://owner/name[@revision][/folder]``;
- ``self:FILE``: images that the base itself draws from the benign prompts of a file;
- ``miniature:STYLE[:N[:LANGUAGES]]``: rendered scenes of the embedded world, for example
  ``miniature:stripes:600:es+hi``.

Light: torch is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from spqr_checks.errors import UserError
from spqr_checks.finetuning.captioned import (
    HUB_FILES,
    CaptionedImages,
    caption_of,
    contents_digest,
    list_entries,
    read_image,
    read_rows,
)
from spqr_checks.hashing import Json, digest
from spqr_checks.prompts.hub import fetch_folder, is_url, pinned_folder
from spqr_checks.prompts.tables import READABLE, place
from spqr_checks.source_code import code_of
from spqr_checks.user_files import path_of, read_text

Draw: TypeAlias = Callable[[list[str]], list[Image.Image]]
"""Prompts → one image each, drawn by the unaligned base."""

_DEFAULT_N = 1000


@dataclass(frozen=True)
class Rendered:
    """A style, how many images (None: as many as asked for), and languages of the captions."""

    style: str
    n: int | None
    languages: tuple[str, ...]

    @classmethod
    def parse(cls, spec: str) -> Rendered:
        """Raises UserError for an unknown style or language, or a number that is none."""
        from spqr_checks.miniature.renderer import STYLE_NAMES
        from spqr_checks.miniature.vocabulary import LANGUAGES

        _, style, number, spoken, *rest = [*spec.split(":"), "", ""]
        if any(rest):
            raise UserError(f"data set {spec!r}: too many parts; write miniature:STYLE:N:LANGUAGES")
        if style not in STYLE_NAMES:
            raise UserError(
                f"data set {spec!r}: unknown style {style!r}; there are: {', '.join(STYLE_NAMES)}"
            )
        if number and not (number.isascii() and number.isdigit() and int(number)):
            raise UserError(f"data set {spec!r}: {number!r} is not a number of images")
        languages = tuple(spoken.split("+")) if spoken else ("en",)
        unknown = [language for language in languages if language not in LANGUAGES]
        if unknown:
            raise UserError(
                f"data set {spec!r}: unknown language {unknown[0]!r}; "
                f"there are: {', '.join(LANGUAGES)}, joined by +"
            )
        return cls(style, int(number) if number else None, languages)

    def images(self, limit: int | None) -> CaptionedImages:
        """The first ``limit`` images; a longer draw begins with the shorter one."""
        from spqr_checks.miniature.renderer import benign_images

        return CaptionedImages(*benign_images(*self._scenes(limit)))

    def captions(self, limit: int | None) -> list[str]:
        """Those of ``images``; nothing is painted for them."""
        from spqr_checks.miniature.renderer import benign_captions

        return benign_captions(*self._scenes(limit))

    def _scenes(self, limit: int | None) -> tuple[str, int, int, tuple[str, ...]]:
        """Style, number, seed and languages."""
        n = min((size for size in (self.n, limit) if size is not None), default=_DEFAULT_N)
        # a seed of its own for every style, so that two data sets never show the same scenes
        seed = int(digest([self.style, *self.languages])[:8], 16)
        return self.style, n, seed, self.languages

    def recipe(self) -> dict[str, Json]:
        """The specification; the code that renders it is the caller's to add."""
        return {
            "kind": "rendered",
            "style": self.style,
            "n": self.n,
            "languages": list(self.languages),
        }


def read_benign_prompts(path: Path) -> list[str]:
    """Prompts of a table (CSV, JSON lines, JSON, Parquet), or one per line of any other file.

    Raises UserError for a missing or empty file, an empty prompt, or a row whose ``kind`` is not
    benign: what is measured must not be trained on.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; self:FILE needs a file of benign prompts")
    if path.suffix not in READABLE:
        prompts = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    else:
        prompts = []
        for line, row in read_rows(path):
            if row.get("kind", "benign") != "benign":
                at = place(path, line)
                raise UserError(f"{at}: kind is {row['kind']!r}; keep benign prompts only")
            prompts.append(caption_of(path, line, row))
    if not prompts:
        raise UserError(f"{path}: no prompts in this file; write one per line")
    return prompts


def _parsed(spec: str) -> Rendered | Path:
    """The rendered data set, or the file or folder that the specification names."""
    kind, _, rest = spec.partition(":")
    if kind == "miniature":
        return Rendered.parse(spec)
    if is_url(spec):
        return fetch_folder(spec, HUB_FILES)
    path = path_of(rest if kind == "self" else spec)
    if kind != "self" and not path.is_dir():
        raise UserError(
            f"data set {spec!r}: no such folder; give a folder of images, "
            "hf://owner/name, self:FILE or miniature:STYLE"
        )
    return path


def pinned(spec: str) -> str:
    """The specification with the commit that an address on the Hub stands for now."""
    return pinned_folder(spec) if is_url(spec) else spec


def _is_self_made(spec: str) -> bool:
    return spec.startswith("self:")


def load_images(
    spec: str, limit: int | None = None, draw: Draw | None = None, *, captioned: bool = True
) -> CaptionedImages:
    """Reads, renders or draws a data set.

    Args:
        limit: take only the first so many images.
        draw: the base's hand; needed for ``self:FILE`` only.
        captioned: whether the images of a folder must have captions; else theirs are empty.

    Raises:
        UserError: for whatever is wrong with the specification or the files.
        ValueError: for a limit below one, or self-made data without ``draw``.
    """
    _check_limit(limit)
    data = _parsed(spec)
    if isinstance(data, Rendered):
        return data.images(limit)
    if not _is_self_made(spec):
        entries = list_entries(data, captioned=captioned)[:limit]
        return CaptionedImages([read_image(e.image) for e in entries], [e.caption for e in entries])
    prompts = read_benign_prompts(data)[:limit]
    if draw is None:
        raise ValueError(f"data set {spec!r} is drawn by the base: pass draw=")
    # the length is checked by CaptionedImages
    return CaptionedImages(draw(prompts), prompts)


def load_captions(spec: str, limit: int | None = None, *, captioned: bool = True) -> list[str]:
    """The captions alone; no image is decoded, painted or drawn. Errors as ``load_images``."""
    _check_limit(limit)
    data = _parsed(spec)
    if isinstance(data, Rendered):
        return data.captions(limit)
    if _is_self_made(spec):
        return read_benign_prompts(data)[:limit]
    return [entry.caption for entry in list_entries(data, captioned=captioned)[:limit]]


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be positive, not {limit}")


def dataset_recipe(spec: str, *, captioned: bool = True) -> dict[str, Json]:
    """What determines the data set: contents of files, or specification and rendering code.

    For ``self:FILE`` the prompts only: which base draws them, and how, is the caller's to add. Of a
    folder the images only, if not ``captioned``.
    """
    data = _parsed(spec)
    code = code_of(load_images)
    if isinstance(data, Rendered):
        return data.recipe() | {"code": code}
    if _is_self_made(spec):
        return {"kind": "self", "prompts": digest(read_benign_prompts(data)), "code": code}
    contents = contents_digest(data, captioned=captioned)
    return {"kind": "folder", "contents": contents, "code": code}
