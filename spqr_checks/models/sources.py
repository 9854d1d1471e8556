"""Where weights come from: a name, a folder or a Hub id; and the digests of what is there.

Light on purpose: torch, diffusers and transformers are never imported here, so that a run whose
artefacts are all in the store finds them without loading a library.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, file_digest
from spqr_checks.hub import away
from spqr_checks.user_files import read_object, refuse_irregular

HASHED = (".safetensors", ".json", ".txt", ".model", ".jinja")
META = "meta"
"""torch's device for weights that have names and shapes, and no values."""
PICKLED = (".bin", ".pt", ".ckpt", ".pth")

_BUILT_IN = {
    "miniature": "pipeline",
    "miniature:clip": "clip",
    "miniature:classifier": "classifier",
}
_BUILT_IN_FOLDER = Path(__file__).parents[1] / "miniature" / "weights"
UNEVEN = "miniature:uneven"
"""The miniature behind an encoder that knows English best; trained here, not packaged."""
_INDEX = "model_index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(@[\w./-]+)?", re.ASCII)
_LONGEST_HEADER = 100_000_000  # as the format's own reader has it
_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve(source: str) -> Path:
    """The folder (or single safetensors file) that a source names, downloaded if it must be.

    `miniature`, `miniature:clip` and `miniature:classifier` are packaged, `miniature:uneven` lies
    where `uneven_folder` says once it was trained; an existing path is taken as it is; anything
    else is a Hub id, `owner/name` or `owner/name@revision`.

    Raises UserError for a path that does not exist, for weights that exist only as pickles, for
    packaged weights that are not there and for a Hub id that cannot be had.
    """
    if source in _BUILT_IN:
        return _built_in(source)
    if source == UNEVEN:
        return _trained()
    path = _existing(source)
    if path is not None and path.is_dir():
        _refuse_pickles(path)
    elif path is not None:
        if path.suffix.lower() in PICKLED:
            raise UserError(_pickled(path, path))
        if path.suffix.lower() != ".safetensors":
            raise UserError(
                f"{path} is not a safetensors file. Give a folder, a .safetensors file or a Hub id."
            )
    elif not source or source.startswith(("/", "./", "../", "~")):
        raise UserError(
            f"{source!r} does not exist. Give a folder with safetensors weights or a Hub id."
        )
    elif not _HUB_ID.fullmatch(source):
        raise UserError(
            f"{source!r} is neither an existing folder nor a Hub id.\n"
            "Give a folder, 'owner/name' or 'owner/name@revision'."
        )
    return _downloaded(source) if path is None else path


def source_recipe(source: str) -> dict[str, Json]:
    """Content digests of every file that decides the bytes of what is loaded from a source.

    Returns `{"files": {relative name: digest}}`, for a Hub id also `"commit"`, the resolved
    commit hash. The place of the folder is no part of it: a copy has the same recipe. Digests
    are kept for the life of the process under (path, size, modification time).

    Raises UserError as `resolve` does, for a source that holds no safetensors file, and for one
    that is truncated.
    """
    path = resolve(source)
    files = list(_files(path)) if path.is_dir() else [path]
    if (path / _INDEX).is_file():
        # checkpoints beside a pipeline's parts are not read
        files = [f for f in files if f.parent != path or f.suffix.lower() != ".safetensors"]
    base = path if path.is_dir() else path.parent
    for file in files:
        if file.suffix.lower() in HASHED:
            refuse_irregular(file)  # a pipe would be read for ever
        if file.suffix.lower() == ".safetensors":
            safetensors_header(file)  # a truncated file is refused before anything is read
    digests: dict[str, Json] = {
        file.relative_to(base).as_posix(): _digest(file, status.st_size, status.st_mtime_ns)
        for file, status in ((f, f.stat()) for f in files if f.suffix.lower() in HASHED)
    }
    if not any(name.endswith(".safetensors") for name in digests):
        raise UserError(f"{source}: no safetensors weights in {path}.")
    recipe: dict[str, Json] = {"files": digests}
    if source not in (*_BUILT_IN, UNEVEN) and _existing(source) is None:
        recipe["commit"] = path.name
    return recipe


def refuse_other_class(source: str, ending: str) -> None:
    """UserError if a model's config.json cannot be read, or names classes that do not end so."""
    path = resolve(source) / "config.json"
    named = read_object(path).get("architectures") or []
    if not isinstance(named, list):
        raise UserError(f"{path}: its architectures are no list; give a model's folder")
    classes = [str(name) for name in named]
    if classes and not any(name.endswith(ending) for name in classes):
        raise UserError(
            f"{source}: holds a {classes[0]}, but a model …{ending} is needed here. Give another."
        )


def parts_of(source: str) -> dict[str, str]:
    """Part → class of a pipeline, and its own as ``_class_name``, by its model_index.json.

    Parts that are left out have none; empty where its files cannot be had.
    """
    try:
        index = read_object(resolve(source) / _INDEX)
    except UserError:
        return {}  # which is said where the pipeline is loaded
    parts = {name: found[-1] for name, found in index.items() if isinstance(found, list) and found}
    named = {"_class_name": index.get("_class_name")} | parts
    return {name: found for name, found in named.items() if isinstance(found, str)}


def safetensors_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name → (dtype, shape) of every tensor in a safetensors file, without reading the weights.

    Raises UserError when the file is missing, is no safetensors file, or is shorter than its own
    header says.
    """
    return _header(path)[0]


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The free text entries in a safetensors header; errors as in `safetensors_header`."""
    return _header(path)[1]


def _existing(source: str) -> Path | None:
    if not source:  # would be the current folder
        return None
    try:
        path = Path(source).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a null byte
        return None


def _built_in(source: str) -> Path:
    folder = _BUILT_IN_FOLDER / _BUILT_IN[source]
    if not any(folder.rglob("*.safetensors")):
        raise UserError(
            f"{source!r}: its weights are not in this installation ({folder}).\n"
            f"Train them with `spqr miniature train --out {shlex.quote(str(_BUILT_IN_FOLDER))}`."
        )
    return folder


def uneven_folder() -> Path:
    """Where `miniature:uneven` lies on this machine, trained or not: in the user's cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "spqr-checks" / "miniature-uneven"


def _trained() -> Path:
    folder = uneven_folder()
    if not (folder / _INDEX).is_file():
        raise UserError(
            f"{UNEVEN!r} is not packaged and was not trained on this machine yet ({folder}).\n"
            "Train it with `spqr miniature train --uneven`: twenty minutes on one core."
        )
    return folder


def _downloaded(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    name, _, revision = source.partition("@")
    quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=_wanted(name, revision or None),
                local_files_only=away(),
            )
        )
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise UserError(
            f"{source!r} is no existing folder, is not in the Hub cache, and the Hub cannot be "
            "reached.\nDownload it on a machine that is online and give its folder."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise UserError(
            f"{source!r} is no existing folder and cannot be had from the Hub: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    finally:
        if not quiet:
            enable_progress_bars()
    if not _COMMIT.fullmatch(folder.name):
        raise UserError(f"{source!r}: the Hub cache at {folder} does not name a commit.")
    _refuse_pickles(folder)
    if not any(file.suffix == ".safetensors" for file in _files(folder)):
        raise UserError(
            f"{source!r} has no safetensors weights on the Hub; pickled weights are not loaded.\n"
            "Convert a copy that you trust, or choose a revision with safetensors (ID@REVISION)."
        )
    return folder


def _wanted(name: str, revision: str | None) -> list[str]:
    """Files of a repository that are read; of a pipeline, no checkpoints beside its parts."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        hf_hub_download(name, _INDEX, revision=revision, local_files_only=away())
        weights = "*/*.safetensors"
    except (HfHubHTTPError, HFValidationError, OSError, ValueError):
        weights = "*.safetensors"  # no pipeline; or no such repository, as is said later
    return [weights, *(f"*{suffix}" for suffix in HASHED if suffix != ".safetensors")]


def _files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Files below a folder, sorted at each level, through links, without hidden ones."""
    real = folder.resolve()
    if real in above:  # a link back to a parent would be followed for ever
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield from _files(path, above | {real})
        elif not path.name.startswith("."):
            yield path


def _refuse_pickles(folder: Path) -> None:
    """Weights that could only be had by unpickling; what no loader reads is left alone."""
    files = list(_files(folder))
    safe = {file.parent for file in files if file.suffix.lower() == ".safetensors"}
    if (folder / _INDEX).is_file():
        safe.add(folder)  # diffusers reads a pipeline's weights from its sub-folders only
    for file in files:
        if file.suffix.lower() in PICKLED and file.parent not in safe:
            raise UserError(_pickled(file, folder))


def _pickled(path: Path, source: Path) -> str:
    return (
        f"{path} is a pickle, which can run code when it is opened. Convert it, which reads "
        f"weights only:\n{conversion(source)}"
    )


def conversion(source: Path) -> str:
    """The command that turns weights of another format into what is loaded instead of them."""
    if source.name in ("", ".."):
        source = source.resolve()
    is_file = source.is_file()
    target = source.with_name(source.stem if is_file else f"{source.name}-safetensors")
    return f"spqr convert {shlex.quote(str(source))} --out {shlex.quote(str(target))}"


@cache
def _digest(file: Path, size: int, mtime_ns: int) -> str:
    return file_digest(file)


def _header(path: Path) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, str]]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            raw = file.read(length) if length <= min(size - 8, _LONGEST_HEADER) else b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    broken = UserError(
        f"{path} is truncated or is not a safetensors file ({size} bytes). "
        "Download or save it again."
    )
    try:
        entries = json.loads(raw.decode("utf-8"))
        metadata = entries.pop("__metadata__", {})
        tensors = {
            name: (str(entry["dtype"]), tuple(int(n) for n in entry["shape"]))
            for name, entry in entries.items()
        }
        end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise broken from error
    if size != 8 + length + end:
        raise broken
    return tensors, {str(key): str(value) for key, value in metadata.items()}
